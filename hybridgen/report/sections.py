"""The sections of the report: which picture, how to read it, and what to beware of."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from hybridgen import plots
from hybridgen.naming import Row, label, ordered
from hybridgen.report import sentences
from hybridgen.report.rows import problems, summary
from hybridgen.report.run import Run
from hybridgen.report.tables import Block

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = [
    "WIDTH", "Grid", "Picture", "Section", "all_sections", "error_panels", "failure_counts",
    "residual", "training",
]  # fmt: skip


# Report width in inches, and bytes a picture may take; the whole report stays below 3 MB.
WIDTH = 10.5
LIMIT = 300_000


@dataclass
class Section:
    """A heading with tables and pictures and how to read them, or why there are none."""

    key: str
    title: str
    caption: str
    pictures: list[Picture] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    absent: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def draw(
        self, width: float, height: float, fill: Callable[[Figure], object], alt: str
    ) -> None:
        """Add a picture of so many inches that `fill` draws; `alt` says what it shows."""
        with plots.style():
            fig = plots.figure(width, height)
            fill(fig)
            data = base64.b64encode(plots.png(fig, LIMIT)).decode("ascii")
        self.pictures.append(Picture(alt, f"data:image/png;base64,{data}", round(100 * width)))


class Grid(NamedTuple):
    """A table: the headings of its columns, and blocks of lines."""

    heads: Sequence[str]
    blocks: Sequence[Block]


class Picture(NamedTuple):
    """A picture as a data address, with its width in pixels on the page."""

    alt: str
    address: str
    width: int


def _group(run: Run, name: str, section: Section) -> xr.Dataset | None:
    """Return a group of the diagnostics, or say in the section why there is none."""
    section.absent = run.absent.get(name, "")
    return run.groups.get(name)


def error_panels(rows: Sequence[Row]) -> list[tuple[str, list[Row], str]]:
    """Return title, rows and metric of each error-against-shift plot that the rows can fill."""
    return [
        (title, members, metric)
        for title, members in problems(rows)
        for metric in ("relative_error", "log_mse_summed")
        if any(
            r["metric"] == metric and r["parameter"] == "mean" and r["learner"] != "published"
            for r in members
        )
    ]


def _error(run: Run) -> Section:
    caption = (
        "The farther right, the farther from the training support; where a line climbs, its "
        "learner is not to be trusted. Bands are intervals, faint lines single seeds, dashed "
        "lines reference levels, open diamonds published values."
    )
    section = Section("error", "Error against shift", caption)
    for title, rows, metric in error_panels(run.rows):
        alt = f"{title}: {label(metric)} against the distance from the training support"
        section.draw(5.6, 3.7, partial(_draw_error, rows, metric), alt)
    if not section.pictures:
        section.absent = "results.json has neither relative_error nor log_mse_summed"
    return section


def _draw_error(rows: Sequence[Row], metric: str, fig: Figure) -> None:
    plots.error_against_shift(rows, metric, fig.add_subplot())


def _rollouts(run: Run) -> Section:
    caption = (
        "The first member of each test set: dots are observed, the shaded window is what the "
        "encoder saw, and right of it every line is a forecast; a line that leaves the dots has "
        "lost the system."
    )
    section = Section("rollouts", "Rollouts under shift", caption)
    if (data := _group(run, "rollouts", section)) is not None:
        height = 1.0 + 1.5 * data.sizes["shift"]
        section.draw(WIDTH, height, partial(plots.rollouts, data), section.title)
    return section


def _parameters(run: Run) -> Section:
    caption = (
        "A perfect learner puts every point on the diagonal. The training support is shaded, grey "
        "points are in support; coloured points that stay level with the shade did not follow the "
        "shift."
    )
    section = Section("parameters", "Parameters, true against inferred", caption)
    if (data := _group(run, "parameters", section)) is not None:
        height = 0.4 + 2.3 * data.sizes["parameter"]
        section.draw(WIDTH, height, partial(plots.parameters, data), section.title)
    return section


def training(run: Run) -> Section:
    """Return the training curves."""
    caption = (
        "Losses against updates: a validation line that rises while the training line falls is "
        "over-fitting. Thin vertical lines are where a stage of training begins."
    )
    section = Section("training", "Training curves", caption, absent=run.absent.get("history", ""))
    if run.history:
        height = 0.3 + 2.5 * -(-len(run.history) // 3)
        section.draw(WIDTH, height, partial(plots.training_curves, run.history), section.title)
    return section


def residual(run: Run) -> Section:
    """Return what f_a learnt, over the plane of two states."""
    caption = (
        "Colour is what the network adds to each rate, beside what the expert truly lacks where "
        "that is known. Hatched regions hold no training data: the network extrapolates there. "
        "The line is where the density of the data is half its peak."
    )
    section = Section("residual", "What f_a learnt", caption)
    if (data := _group(run, "residual", section)) is not None:
        width, height = 3.4 + 3.4 * ("truth" in data), 0.4 + 2.6 * data.sizes["output"]
        section.draw(1.2 + width, height, partial(plots.residual_map, data), section.title)
        section.notes += [str(data.attrs["note"])] if data.attrs.get("note") else []
    section.warnings += [w for _, rows in problems(run.rows) for w in sentences.warnings(rows)]
    return section


def _failures(run: Run) -> Section:
    caption = (
        "Every prediction is counted: a failed one scores as the signal mean and is never "
        "dropped; a retried one was answered at a later attempt."
    )
    section = Section("failures", "Failures", caption)
    if (data := _group(run, "status", section)) is not None:
        status = data["status"]
        found = failure_counts(status)
        section.notes.append(_failed(found, status.size))
        if found:
            height = 0.9 + 0.24 * len({c[:2] for c in found})
            total = status.sizes["sample"]
            section.draw(7.5, height, partial(_draw_failures, found, total), section.title)
    counted = [r for r in summary(run.rows) if r["metric"] == "failed" and r["value"] is not None]
    section.notes.append(
        f"The rows count {sum(r['value'] for r in counted):.3g} failed predictions a seed in "
        f"{len(counted)} pairs of learner and test set."
        if counted
        else "The rows hold no count of failed predictions."
    )
    return section


def _draw_failures(counts: list[tuple[str, str, str, int]], total: int, fig: Figure) -> None:
    plots.failures(counts, total, fig.add_subplot())


def failure_counts(status: xr.DataArray) -> list[tuple[str, str, str, int]]:
    """Count what did not go smoothly: learner, shift, reason, number; "ok" is left out.

    Arguments:
        status: Codes (learner, shift, sample) with the CF attributes `flag_values` and
            `flag_meanings`; a code without a meaning is counted under its number.
    """
    values = [int(v) for v in status.attrs["flag_values"]]
    meanings = dict(zip(values, str(status.attrs["flag_meanings"]).split(), strict=True))
    codes = status.transpose("learner", "shift", "sample").values
    learners, shifts = (status[d].values.tolist() for d in ("learner", "shift"))
    found = []
    for learner in ordered(learners):
        for j, shift in enumerate(shifts):
            counts = Counter(codes[learners.index(learner), j].tolist())
            for code, count in sorted(counts.items()):
                if meanings.get(code) != "ok":
                    reason = meanings.get(code, f"status {code}").replace("_", " ")
                    found.append((learner, shift, reason, count))
    return found


def _failed(counts: list[tuple[str, str, str, int]], total: int) -> str:
    """Return how many predictions failed, and why."""
    lost = Counter[str]()
    for _, _, reason, count in counts:
        lost[reason] += count
    retried = lost.pop("retried", 0)
    reasons = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
    return (
        f"{lost.total()} failed of {total} predictions of the first seed"
        f"{': ' + reasons if reasons else ''}; {retried} answered after a retry."
    )


def all_sections(run: Run) -> list[Section]:
    """Return every section of the report, in order."""
    builders = (_error, _rollouts, _parameters, training, residual, _failures)
    return [build(run) for build in builders]
