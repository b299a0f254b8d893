"""One writer at a time; a lock that nobody holds any more is no obstacle."""

import json
import logging
import os
import subprocess
import sys

import pytest

from hybridgen.errors import OutputExistsError
from hybridgen.sweeping.locks import locked


def test_a_second_writer_is_refused(tmp_path):
    with locked(tmp_path):
        with pytest.raises(OutputExistsError, match=f"process {os.getpid()} on"), locked(tmp_path):
            pass
        assert (tmp_path / "lock.json").is_file()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, caplog):
    code = (
        "import os, sys; from pathlib import Path; from hybridgen.sweeping.locks import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert (tmp_path / "lock.json").is_file()
    with caplog.at_level(logging.WARNING, "hybridgen"), locked(tmp_path):
        assert "which has ended" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_came_again_is_another_process(tmp_path):
    with locked(tmp_path):
        held = json.loads((tmp_path / "lock.json").read_text())
    (tmp_path / "lock.json").write_text(json.dumps({**held, "born": "1"}))
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("text", ['{"host": "elsewhere", "pid": 1, "born": "", "time": ""}', "{"])
def test_what_cannot_be_known_needs_force(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(OutputExistsError, match="--force"), locked(tmp_path):
        pass
    with locked(tmp_path, force=True):
        pass
    assert list(tmp_path.iterdir()) == []
