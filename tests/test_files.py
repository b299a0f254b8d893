"""Files are whole or absent, whatever happens while they are written."""

import hashlib
import os
import threading

import pytest

from hybridgen import files


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a b.txt"
    assert files.write_text_atomic(path, "one\r\ntwo é") == path
    assert path.read_bytes() == "one\r\ntwo é".encode()
    assert files.sha256_of(path) == hashlib.sha256("one\r\ntwo é".encode()).hexdigest()
    files.write_bytes_atomic(path, b"three")
    assert path.read_bytes() == b"three"
    assert os.listdir(tmp_path) == ["a b.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "usual").write_text("")
    files.write_text_atomic(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    files.write_text_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            files.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1]
        )
    files.write_text_atomic(tmp_path / "a", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "a.bin"
    whole = [bytes([i]) * 300_000 for i in range(2)]
    files.write_bytes_atomic(path, whole[0])
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(20):
        files.write_bytes_atomic(path, whole[i % 2])
    done.set()
    reader.join()
    assert seen
    assert seen <= set(whole)
