"""The search finds just the culprits, whoever they are, in few trials."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgen.integrate import Status
from hybridgen.sweeping.culprits import Fault, find_culprits

FAULT = Fault(Status.error, "ValueError", "")


@given(start=st.integers(0, 100), size=st.integers(1, 200), data=st.data())
def test_all_and_only_the_culprits_are_lost(start, size, data):
    members = range(start, start + size)
    bad = data.draw(st.sets(st.sampled_from(members), min_size=1, max_size=5))
    trials = []

    def trial(low, high):
        trials.append((low, high))
        return FAULT if any(low <= b < high for b in bad) else None

    blamed = []
    found = find_culprits(trial, start, start + size, lambda m, f: blamed.append(m))
    assert set(found.lost) == bad
    assert blamed == sorted(bad)
    passed = [m for low, high in found.passing for m in range(low, high)]
    assert sorted(passed) == [m for m in members if m not in bad]
    assert len(trials) <= len(bad) * (2 * math.ceil(math.log2(size)) + 2)


def test_one_stumble_costs_nobody():
    stumbles = iter([FAULT])
    found = find_culprits(lambda low, high: next(stumbles, None), 0, 8)
    assert not found.lost
    assert sorted(m for a, b in found.passing for m in range(a, b)) == list(range(8))


def test_blame_can_end_the_search():
    def enough(member, fault):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        find_culprits(lambda low, high: FAULT, 0, 1000, enough)
