r"""Runge-Kutta coefficients, as data.

An explicit method with :math:`s` stages advances :math:`y` by one step :math:`h` as

.. math::
    k_i = f\bigl(t + c_i h,\; y + h \textstyle\sum_{j<i} a_{ij} k_j\bigr), \qquad
    y_1 = y + h \sum_i b_i k_i, \qquad
    e = h \sum_i \tilde b_i k_i,

where :math:`e`, the difference from a companion of one order less, estimates the error. A method
is "first same as last" (FSAL) when one more derivative is taken at :math:`y_1`: it enters
:math:`e`, and it is the :math:`k_1` of the next step.

References:
    Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption
    (Tsitouras, 2011), doi:10.1016/j.camwa.2011.06.002
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RK4", "TABLEAUS", "TSIT5", "Tableau"]


@dataclass(frozen=True)
class Tableau:
    """The coefficients of an explicit Runge-Kutta method.

    Arguments:
        name: The name by which the method is asked for.
        order: Order of the method; its error estimate, if any, shrinks with `h^order` a step.
        c: Nodes of the stages after the first.
        a: One row of weights for each of these stages.
        b: Weights of the solution, one for each stage.
        e: Weights of the error estimate, the last one for the derivative at the end of the step;
            empty for a method without an estimate. A method with an estimate is FSAL.

    Example:
        >>> RK4.order, RK4.b[0] * 6, RK4.fsal
        (4, 1.0, False)
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    e: tuple[float, ...] = ()

    @property
    def fsal(self) -> bool:
        """Whether the last derivative of a step is the first of the next."""
        return bool(self.e)


TSIT5 = Tableau(
    name="tsit5",
    order=5,
    c=(0.161, 0.327, 0.9, 0.9800255409045097, 1.0),
    a=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ),
    ),
    b=(
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
    ),
    e=(
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1.0 / 66.0,
    ),
)

RK4 = Tableau(
    name="grid_rk4",
    order=4,
    c=(0.5, 0.5, 1.0),
    a=((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    b=(1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0),
)

TABLEAUS = {tableau.name: tableau for tableau in (TSIT5, RK4)}
