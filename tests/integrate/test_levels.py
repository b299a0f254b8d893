import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hybridgen.integrate.levels import ladder, next_level


@given(st.integers(1, 5000))
def test_ladder_rises_to_its_limit(limit):
    rungs = ladder(limit)
    assert rungs[0] == 1
    assert rungs[-1] == limit
    assert all(a < b <= 2 * a for a, b in pairwise(rungs))


@given(st.floats(1e-12, 1.0), st.sampled_from(ladder(256)))
def test_a_level_that_is_asked_for_would_do(error, level):
    asked = next_level(error, level, 5, ladder(256))
    assert error * (level / asked) ** 5 <= 1.0


@given(
    st.one_of(st.floats(1.0, exclude_min=True), st.just(math.nan)),
    st.sampled_from(ladder(256)),
)
def test_a_failure_asks_for_more_but_not_for_everything(error, level):
    assert level < next_level(error, level, 5, ladder(4096)) <= 8 * level
    assert next_level(math.nan, level, 5, ladder(4096)) == 2 * level
    assert next_level(error, 256, 5, ladder(256)) == 256
