"""What the rows say, in plain sentences: the headline and the warnings.

The headline speaks of the farthest test set, and of every shifted test set when it says whether
the forecast wins; a difference within the intervals is said to be one.
"""

from __future__ import annotations

from collections.abc import Sequence

from hybridgen.naming import ABLATION, Row, label, ordered, row_name
from hybridgen.report.rows import ShiftPoint, find, shift_points, summary
from hybridgen.report.tables import REFERENCES, number

__all__ = ["headline", "warnings"]

SHARE_LIMIT = COSINE_LIMIT = 0.5
FORECAST = "log_mse_summed"


def headline(rows: Sequence[Row]) -> list[str]:
    """Return sentences on what expert augmentation did in one problem: two, or three if refined.

    Arguments:
        rows: Result rows of one problem.
    """
    chosen = [r for r in summary(rows) if r["learner"] not in REFERENCES]
    shifted = [p for p in shift_points(chosen) if p.shift != "none"]
    if not shifted:
        return ["The rows hold no test set outside the training support."]
    far = [p for p in shifted if p.distance is not None][-1:] or shifted[-1:]
    names = {row_name(r) for r in chosen}
    plus = [n for n in ("aphynity+", "hvae+") if n in names]
    said = [] if plus else [_lowest(chosen, far[0])]
    for name in plus:
        said += [_parameters(chosen, name, far[0]), _forecast(chosen, name, shifted, far[0])]
        if _duels(chosen, f"{name} refined", shifted):
            said.append(_forecast(chosen, f"{name} refined", shifted, far[0]))
    return [*said, *_ablation(chosen)]


def _where(point: ShiftPoint) -> str:
    words = f"test set “{label(point.shift)}”"
    if not point.distance:
        return words
    return f"{words}, {point.distance:.2g} training widths outside the training support"


def _value(row: Row) -> str:
    return f"{number(row['value'])} {row['unit'] or ''}".rstrip()


def _overlap(one: Row, other: Row) -> str:
    """Return a note where two intervals overlap."""
    bounds = [r[c] for r in (one, other) for c in ("low", "high")]
    if None in bounds or max(bounds[0], bounds[2]) > min(bounds[1], bounds[3]):
        return ""
    return ", within the intervals"


def _lowest(rows: Sequence[Row], far: ShiftPoint) -> str:
    """Return who has the lowest error on the farthest test set, where nothing was augmented."""
    found = [find(rows, n, far.shift, FORECAST) for n in ordered(map(row_name, rows))]
    best = min((r for r in found if r is not None), key=lambda r: r["value"], default=None)
    start = "No learner was trained with expert augmentation"
    if best is None:
        return f"{start}, and the rows hold no forecast error on the {_where(far)}."
    return (
        f"{start}; on the {_where(far)}, {label(row_name(best))} forecasts best ({_value(best)})."
    )


def _parameters(rows: Sequence[Row], plus: str, far: ShiftPoint) -> str:
    """Return the change of the parameter error by augmentation, and by refinement."""
    metric, base = "relative_error", plus.removesuffix("+")
    after, before = (find(rows, name, far.shift, metric) for name in (plus, base))
    if after is None:
        return f"The rows hold no parameter error of {label(plus)} on the {_where(far)}."
    start = f"On the {_where(far)}, the relative error of the parameters"
    if before is None:
        text = f"{start} is {_value(after)} with {label(plus)}"
    else:
        move = "falls" if after["value"] < before["value"] else "does not fall: it goes"
        text = (
            f"{start} {move} from {_value(before)} ({label(base)}) to {_value(after)} "
            f"({label(plus)}{_overlap(after, before)})"
        )
    refined = find(rows, f"{plus} refined", far.shift, metric)
    tail = f"; refined on the observed window it is {_value(refined)}" if refined else ""
    return f"{text}{tail}."


def _ablation(rows: Sequence[Row]) -> list[str]:
    """Return what the regularisers do to the parameter error in support, if that was tried."""
    found = [find(rows, name, "none", "relative_error") for name in ABLATION]
    if None in found:
        return []
    with_all, without = (r for r in found if r is not None)
    factor = without["value"] / with_all["value"]
    return [
        f"Without regularisers, an HVAE with a general residual has {number(factor)} times the "
        f"parameter error in support: {_value(without)} instead of {_value(with_all)}"
        f"{_overlap(with_all, without)}."
    ]


def _duels(
    rows: Sequence[Row], plus: str, shifted: Sequence[ShiftPoint]
) -> list[tuple[ShiftPoint, Row, Row]]:
    """Return our forecast and the best baseline on each test set, refined against refined."""
    refined, names = plus.endswith(" refined"), ordered(map(row_name, rows))
    rivals = [
        n
        for n in names
        if n not in ABLATION and "+" not in n and n.endswith(" refined") == refined
    ]
    found = []
    for point in shifted:
        ours = find(rows, plus, point.shift, FORECAST)
        theirs = [r for n in rivals if (r := find(rows, n, point.shift, FORECAST))]
        if ours is not None and theirs:
            found.append((point, ours, min(theirs, key=lambda r: r["value"])))
    return found


def _forecast(
    rows: Sequence[Row], plus: str, shifted: Sequence[ShiftPoint], far: ShiftPoint
) -> str:
    """Return whether the forecast beats every baseline on every test set, and if not who wins."""
    duels = _duels(rows, plus, shifted)
    if not duels:
        return f"The rows hold no forecast error of {label(plus)} beside a baseline."
    lost = [d for d in duels if d[1]["value"] >= d[2]["value"]]
    if not lost:
        point, ours, best = next((d for d in duels if d[0] == far), duels[-1])
        every = f"all {len(duels)} shifted test sets" if len(duels) > 1 else "the shifted test set"
        return (
            f"The forecast of {label(plus)} beats every baseline on {every}: its log squared "
            f"error on “{label(point.shift)}” is {_value(ours)}, against {_value(best)} of the "
            f"best baseline ({label(row_name(best))}{_overlap(ours, best)})."
        )
    wins = "; ".join(
        f"on “{label(point.shift)}” {label(row_name(best))} wins with {_value(best)} against "
        f"{_value(ours)}{_overlap(ours, best)}"
        for point, ours, best in lost
    )
    kept = f"it is best on {len(duels) - len(lost)} of {len(duels)} shifted test sets"
    return f"The forecast of {label(plus)} does not beat every baseline: {wins}; {kept}."


def warnings(rows: Sequence[Row]) -> list[str]:
    """Return what the diagnostics of the residual warn of, for each learner in support.

    The share is that of dy/dt which `f_a` carries; the cosine is between `f_a` and the directions
    in which the expert's parameters move dy/dt. Either is a fraction, or given in %.
    """
    found = []
    for r in summary(rows):
        if (r["shift"], r["parameter"]) != ("none", "mean") or r["value"] is None:
            continue
        value = abs(r["value"]) / (100 if r["unit"] == "%" else 1)
        if r["metric"] == "share_fa" and value > SHARE_LIMIT:
            found.append(
                f"{label(row_name(r))}: f_a carries {value:.0%} of dy/dt. The network swallows "
                "the expert, so the parameters mean little."
            )
        if r["metric"] == "cosine_fa_expert" and value > COSINE_LIMIT:
            found.append(
                f"{label(row_name(r))}: the cosine between f_a and the expert's own directions is "
                f"{value:.2f}. f_a does what the parameters could do: they are poorly identified."
            )
    return found
