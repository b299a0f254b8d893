"""The sections of the report of a fit to a user's data."""

from __future__ import annotations

from functools import partial

from hybridgen import plots_fit
from hybridgen.naming import label, ordered
from hybridgen.report import fits, sentences
from hybridgen.report.rows import problems
from hybridgen.report.run import Run
from hybridgen.report.sections import WIDTH, Grid, Section, residual, training
from hybridgen.report.tables import Block, Cell, Line, number

__all__ = ["fit_sections"]

# what to say of a verdict of `hybridgen.diagnostics.identifiability`
_VERDICTS = {
    "identified": "identified",
    "flat": "the data say little",
    "trade_off": "trades off",
    "at_bound": "at an end of its range",
}


def fit_sections(run: Run) -> list[Section]:
    """Return every section, in order."""
    builders = (_forecasts, _parameters, _identifiability, _residual, training)
    return [build(run) for build in builders]


def _forecasts(run: Run) -> Section:
    caption = (
        "Filled dots were seen in training (shaded), open dots were held back: there every line "
        "is a forecast. A band is what the uncertainty of parameters and initial state makes of "
        "it, by the Laplace covariance; it knows nothing of what a model lacks."
    )
    section = Section("forecast", "Data, fit and forecast", caption)
    section.absent = run.absent.get("forecast", "")
    data = run.groups.get("forecast")
    if data is None:
        return section
    height = 0.7 + min(2.6, 9.0 / data.sizes["state"]) * data.sizes["state"]
    alt = "Observed, fitted and forecast states against time"
    section.draw(WIDTH, height, partial(plots_fit.forecasts, data), alt)
    values, runs = int(data.attrs["held_values"]), int(data.attrs["held_runs"])
    of = "one run" if runs == 1 else f"{runs} runs"
    section.notes.append(f"The errors above rest on {values} held-back values of {of}.")
    if runs > data.sizes["sample"]:
        section.notes.append(f"Shown are the first {data.sizes['sample']} of the scored runs.")
    return section


def _parameters(run: Run) -> Section:
    caption = (
        "Brackets are 90 % intervals: of one system by the Laplace covariance of the refined "
        "answer, of many how they spread over the scored runs. They hold if the model does; "
        "those of a hybrid also take what it learnt as given."
    )
    section = Section("parameters", "Parameters", caption)
    for title, rows in problems(run.rows):
        heads, block = fits.estimates(rows)
        if block.lines:
            section.grids.append(Grid(heads, [block]))
        else:
            section.absent = f"no learner of {title} has parameters"
    return section


def _identifiability(run: Run) -> Section:
    caption = (
        "What the data say of each parameter and initial value: its standard deviation after the "
        "data, in its unit and as a part of its range before them, and what it goes along with."
    )
    section = Section("identifiability", "What the data determine", caption)
    found = {k: v for k, v in run.identifiability.items() if v.sizes["parameter"]}
    blocks = []
    if not found:
        section.absent = run.absent.get("identifiability", "no learner has parameters")
    heads = ["unit", "verdict", "sd", "of its range", "goes along with"]
    for name in ordered(found):
        data, lines = found[name], []
        for i, parameter in enumerate(data["parameter"].values.tolist()):
            p = {str(k): v.values[i] for k, v in data.data_vars.items()}
            partner = (
                f"{p['partner']} ({number(float(p['correlation']))})" if p["partner"] else "–"
            )
            texts = (
                str(p["unit"]), _VERDICTS.get(str(p["verdict"]), str(p["verdict"])),
                number(float(p["sd"])), number(float(p["wide"])), partner,
            )  # fmt: skip
            words = f"{parameter} at the start" if p["kind"] == "x0" else parameter
            lines.append(Line(words, tuple(Cell(t) for t in texts)))
        blocks.append(Block(label(name), tuple(lines)))
        if "p_value" in data.attrs:
            section.notes.append(_misspecified(data.attrs))
    section.grids += [Grid(heads, blocks)] if blocks else []
    return section


def _misspecified(attrs: dict[str, float]) -> str:
    """Return whether the expert alone can be right."""
    chance = f"p = {attrs['p_value']:.2g}"
    if attrs["misspecified"]:
        return (
            f"The expert alone cannot be right: what its best fit leaves of the window is no "
            f"white noise ({chance})."
        )
    return (
        "Nothing says that the expert alone is wrong: what its best fit leaves of the window "
        f"could be white noise ({chance})."
    )


def _residual(run: Run) -> Section:
    section = residual(run)
    for _, rows in problems(run.rows):
        heads, block = fits.residual_lines(rows)
        if block.lines:
            section.grids.append(Grid(heads, [block]))
        heads, block = fits.strengths(rows)
        if block.lines:
            section.grids.append(Grid(heads, [block]))
            section.notes.append(
                "The strength of the penalty on f_a is the one that did best in this: nothing "
                "that was held back had a say."
            )
    section.warnings = [w for _, rows in problems(run.rows) for w in sentences.warnings(rows)]
    return section
