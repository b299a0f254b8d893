"""A line that is not whole is as if it was not there."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hybridgen.sweeping.records import Receipt, Records, damage, read_records, sealed, unsealed

RECEIPT = Receipt(3, {"y": [100, 7]}, {"0": 5}, {"ValueError": {"count": 1, "first": "§"}})


def test_records_come_back(tmp_path):
    for _ in range(2):  # each writer has a file of its own
        records = Records(tmp_path)
        records.append(RECEIPT)
        records.append(Receipt(4, {}, {}))
    found = list(read_records(tmp_path))
    assert found.count(RECEIPT) == 2
    assert len(found) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_a_torn_line_is_skipped(tmp_path):
    records = Records(tmp_path)
    records.append(RECEIPT)
    path = next(tmp_path.iterdir())
    line = path.read_bytes()
    for end in range(1, len(line)):
        path.write_bytes(line + line[:end])
        assert list(read_records(tmp_path)) == [RECEIPT, path]


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_flipped_byte_is_seen(place, flip):
    line = bytearray(sealed({"task": 3, "name": "a b"}).encode())
    line[place % len(line)] ^= flip
    assert unsealed(bytes(line)) is None


def test_damage_of_a_chunk(tmp_path):
    from hybridgen.sweeping.records import checksum

    content = b"what was drawn"
    sum_ = checksum(content)
    path: Path = tmp_path / "0"
    path.write_bytes(content + sum_.to_bytes(4, "little"))
    stamp = [len(content) + 4, sum_]
    assert damage(path, stamp, thorough=True) is None
    assert "instead of 19" in damage(path, [19, sum_], thorough=False)
    assert "checksum" in damage(path, [stamp[0], sum_ ^ 1], thorough=False)
    path.write_bytes(b"W" + path.read_bytes()[1:])
    assert damage(path, stamp, thorough=False) is None
    assert "checksum" in damage(path, stamp, thorough=True)
    path.unlink()
    assert damage(path, stamp, thorough=True) == "is missing"
