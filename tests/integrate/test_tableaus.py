import pytest
import torch

from hybridgen.integrate.tableaus import TABLEAUS, TSIT5


def _conditions(tableau, weights, stages):
    """The left sides of the order conditions of each rooted tree up to order 5, by order."""
    c = torch.tensor((0.0, *tableau.c) + (1.0,) * (stages - len(tableau.c) - 1))
    a = torch.zeros(stages, stages)
    for i, row in enumerate(tableau.a):
        a[i + 1, : len(row)] = torch.tensor(row)
    if stages > len(tableau.b):
        a[-1, : len(tableau.b)] = torch.tensor(tableau.b)
    w = torch.tensor(weights)
    ac, ac2, ac3, aac, acac = a @ c, a @ c**2, a @ c**3, a @ (a @ c), a @ (c * (a @ c))
    return {
        1: [(w.sum(), 1)],
        2: [(w @ c, 2)],
        3: [(w @ c**2, 3), (w @ ac, 6)],
        4: [(w @ c**3, 4), (w @ (c * ac), 8), (w @ ac2, 12), (w @ aac, 24)],
        5: [
            (w @ c**4, 5),
            (w @ (c**2 * ac), 10),
            (w @ (c * ac2), 15),
            (w @ (c * aac), 30),
            (w @ ac**2, 20),
            (w @ ac3, 20),
            (w @ acac, 40),
            (w @ (a @ ac2), 60),
            (w @ (a @ aac), 120),
        ],
    }


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS.keys())
def test_order_conditions(tableau):
    conditions = _conditions(tableau, tableau.b, len(tableau.b))
    for order in range(1, tableau.order + 1):
        for left, density in conditions[order]:
            assert left.item() == pytest.approx(1 / density, abs=1e-13)
    for row, c in zip(tableau.a, tableau.c, strict=True):
        assert sum(row) == pytest.approx(c, abs=1e-13)


def test_error_estimate_vanishes_below_its_order_and_not_at_it():
    conditions = _conditions(TSIT5, TSIT5.e, len(TSIT5.e))
    for order in range(1, 5):
        for left, _ in conditions[order]:
            assert left.item() == pytest.approx(0.0, abs=1e-13)
    assert max(abs(left.item()) for left, _ in conditions[5]) > 1e-5
