"""The numbers are Philox's, members depend on their index alone, streams are independent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridgen import rng

# known answers published with Random123 (Salmon et al., 2011)
VECTORS = [
    ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (
        [0xFFFFFFFF] * 4,
        (0xFFFFFFFF, 0xFFFFFFFF),
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_known_answers(counter, key, expected):
    assert rng.philox4x32(np.array(counter, dtype=np.uint64), key).tolist() == expected


@given(
    seed=st.integers(0, 2**40),
    indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=5),
    count=st.integers(1, 7),
)
def test_member_depends_on_its_index_alone(seed, indices, count):
    together = rng.normal(seed, "a", indices, count)
    alone = np.stack([rng.normal(seed, "a", [i], count)[0] for i in indices])
    assert np.array_equal(together, alone)


def test_first_numbers_do_not_depend_on_how_many_are_drawn():
    assert np.array_equal(rng.uniform(0, "a", [3], 9)[:, :4], rng.uniform(0, "a", [3], 4))


def test_distribution():
    u = rng.uniform(0, "a", np.arange(200_000), 2)
    assert u.min() > 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 3e-3
    n = rng.normal(0, "a", np.arange(200_000), 3)
    assert np.allclose(n.mean(0), 0, atol=0.01)
    assert np.allclose(np.cov(n.T), np.eye(3), atol=0.02)


def test_streams_and_seeds_differ():
    draws = [rng.uniform(s, name, [0], 4) for s in (0, 1) for name in ("a", "b")]
    assert len({d.tobytes() for d in draws}) == 4


def test_scoped_leaves_the_global_generator():
    before = torch.random.get_rng_state()
    with rng.scoped(5):
        first = torch.rand(3)
    with rng.scoped(5):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.random.get_rng_state())
