"""One thread for small computations, and as many as before afterwards."""

import pytest
import torch

from hybridgen.threads import one_thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_come_back(two_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="oh"), one_thread():
        raise RuntimeError("oh")
    assert torch.get_num_threads() == 2


def test_nothing_changes_unless_wanted(two_threads):
    with one_thread(False):
        assert torch.get_num_threads() == 2
