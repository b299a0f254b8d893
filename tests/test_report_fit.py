"""The report of a fit to a user's data says who forecasts best, and by how much."""

import io
import json

import pytest
from rich.console import Console

from hybridgen.evaluation import Row
from hybridgen.report import fits, results_page, summary_of, table, write_report

SCORES = {
    ("mean", "none"): 1.6,
    ("expert_only", "amortised"): 0.5,
    ("expert_only", "refined"): 0.4,
    ("network_only", "amortised"): 2.0,
    ("aphynity", "amortised"): 0.35,
    ("aphynity", "refined"): 0.3,
}


def make_rows(scores=SCORES, metric="rms_log"):
    """Rows of a fit whose errors are given."""
    same = {"experiment": "own_data", "problem": "predation", "variant": "until 1914"}
    rows = []
    for (learner, inference), value in scores.items():
        own = {**same, "learner": learner, "inference": inference}
        held = {**own, "shift": "horizon", "distance": 0.4}
        unit = "1" if metric == "rms_log" else "m"
        for name, part in (("hare", 1.0), ("lynx", 0.5)):
            rows.append(Row(metric=metric, parameter=name, value=value * part, unit=unit, **held))
        rows.append(Row(metric="rms_sd", value=value, unit="sd", **held))
        rows.append(Row(metric="log_mse_summed", value=10 * value, unit="nat", **held))
        rows.append(Row(metric="failed", value=0.0, unit="1", **held))
        if learner in ("expert_only", "aphynity"):
            bounds = {"low": 0.3, "high": 0.5} if inference == "refined" else {}
            estimate = {"metric": "estimate", "parameter": "alpha", "unit": "1/year"}
            rows.append(Row(value=0.4, **estimate, **bounds, **own))
    return [r.asdict() for r in rows]


def test_the_winner_is_the_best_of_each_learner():
    said = fits.headline(make_rows())
    assert said[0] == (
        "On the held-back times (after 1914), APHYNITY refined forecasts best: its rms error is "
        "0.30 standard deviations of the logarithm of what training saw, 25% less than that of "
        "expert only refined (0.40); network only (2.00) follows."
    )
    assert said[1] == "network only forecast no better than the mean of the data (1.60)."
    assert said[2] == "What the hybrid learnt beside the expert takes 25% off the expert's error."


def test_a_hybrid_that_does_not_help_is_told_so():
    worse = {**SCORES, ("aphynity", "amortised"): 0.9, ("aphynity", "refined"): 0.8}
    said = fits.headline(make_rows(worse, metric="rms"))
    assert said[0].startswith("On the held-back times (after 1914), expert only refined forecasts")
    assert "50% less than that of APHYNITY refined (0.80)" in said[0]
    assert "logarithm" not in said[0]
    assert said[-1] == "What the hybrid learnt beside the expert does not help it to forecast."


def test_a_single_learner_has_no_rival():
    alone = {k: v for k, v in SCORES.items() if k[0] == "expert_only"}
    (said,) = fits.headline(make_rows(alone))
    assert said.endswith("0.40 standard deviations of the logarithm of what training saw.")


def test_errors_are_a_line_a_learner_and_a_column_a_state():
    heads, block = fits.errors(make_rows())
    assert heads == ["ln hare", "ln lynx", "all (sd)", "log sq. error (nat)"]
    assert [line.name for line in block.lines] == [
        "mean baseline", "expert only", "expert only refined", "network only", "APHYNITY",
        "APHYNITY refined",
    ]  # fmt: skip
    best = [[c.text for c in line.cells if c.best] for line in block.lines]
    assert best == [[], [], [], [], [], ["0.30", "0.15", "0.30", "3.00"]]


def test_failures_are_counted_where_there_are_any():
    rows = make_rows()
    for r in rows:
        if r["metric"] == "failed" and r["learner"] == "network_only":
            r["value"] = 2.0
    heads, block = fits.errors(rows)
    assert heads[-1] == "failed"
    assert [line.cells[-1].text for line in block.lines] == ["0", "0", "0", "2", "0", "0"]


def test_parameters_have_units_and_intervals():
    heads, block = fits.estimates(make_rows())
    assert heads == ["unit", "expert only", "expert only refined", "APHYNITY", "APHYNITY refined"]
    (line,) = block.lines
    assert [c.text for c in line.cells] == ["1/year", "0.40", "0.40", "0.40", "0.40"]
    assert line.cells[2].interval == "[0.30, 0.50]"


def test_terminal_and_pages_say_the_same(tmp_path):
    rows = make_rows()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(rows))
    assert "APHYNITY refined" in console.export_text()
    assert summary_of(rows) == fits.headline(rows)
    (tmp_path / "results.json").write_text(json.dumps(rows))
    page = write_report(tmp_path).read_text()
    for text in (page, results_page(tmp_path)):
        assert "25% less than that of" in text
    assert "the run directory holds no diagnostics.zarr" in page


def test_studies_have_no_sentences():
    row = Row(experiment="a", problem="b", learner="mean", metric="log_mse_summed", value=1.0)
    assert summary_of([row.asdict()]) == []


@pytest.mark.parametrize("shift", ["none", "far"])
def test_rows_of_studies_are_none_of_a_fit(shift):
    assert not fits.is_fit([Row(shift=shift).asdict()])
