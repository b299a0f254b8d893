"""The report and the page of a benchmark say what its rows say."""

import io
import json

import pytest
from hybridgen.experiments.benchmarking import result_row
from rich.console import Console

from hybridgen.errors import DataError
from hybridgen.report import (
    results_page,
    summary_of,
    table,
    twin_rows,
    write_report,
    write_results_page,
)
from hybridgen.report.bench_sections import FLOOR, grid, headline, works
from hybridgen.report.rows import check_rows, is_benchmark

SAME = {"experiment": "bench_toy", "work": "pendulum", "device": "cpu", "dtype": "float64"}


def timed(name, value, **more):
    base = {"metric": "cpu_time", "unit": "s", "ratio_to": "hybridgen compiled"}
    return result_row(**SAME, contestant=name, value=value, ratio=value / 0.02, **base, **more)


def make_rows():
    rows = [
        timed("hybridgen compiled", 0.02, low=0.019, high=0.025, error=1.5e-6, knob="rtol 0.001"),
        result_row(
            **SAME, contestant="hybridgen compiled", metric="throughput", value=5e5, unit="1/s"
        ),
        timed("torchdiffeq dopri5", 0.66, low=0.6, high=0.7, error=1e-6, knob="rtol 1e-7"),
        timed("diffrax tsit5 fixed", 0.09, error=1.7e-6, knob="substeps 1"),
        timed(FLOOR, 0.005, error=0.0),
        result_row(
            **SAME, contestant="torchode tsit5", metric="cpu_time", unit="s", knob="not installed"
        ),
    ]
    other = {**SAME, "dtype": "float32"}
    return [
        *rows,
        result_row(**other, contestant="hybridgen eager", metric="cpu_time", value=0.1, unit="s"),
    ]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(make_rows()))
    return folder


def test_rows_of_a_benchmark_are_told_from_others():
    assert is_benchmark(make_rows())
    assert not is_benchmark([{"learner": "aphynity"}])
    assert not is_benchmark([])
    assert not is_benchmark("contestant")


def test_rows_are_checked():
    rows = make_rows()
    rows[0]["value"] = float("nan")
    assert check_rows(rows)[0]["value"] is None
    del rows[1]["ratio"]
    with pytest.raises(DataError, match="row 1 lacks ratio"):
        check_rows(rows)
    rows = make_rows()
    rows[2]["learner"] = "me"
    with pytest.raises(DataError, match="row 2 has the unknown column 'learner'"):
        check_rows(rows)
    rows = make_rows()
    rows[0]["error"] = "small"
    with pytest.raises(DataError, match="error='small'; expected a number"):
        check_rows(rows)


def test_a_work_in_one_precision_is_a_table():
    found = works(make_rows())
    assert [title for title, _ in found] == ["pendulum, float64, cpu", "pendulum, float32, cpu"]
    heads, block = grid(found[0][1])
    assert heads == [
        "cpu time (s)", "× hybridgen compiled", "throughput (1/s)", "error", "setting",
    ]  # fmt: skip
    ours, dopri5, fixed, floor = block.lines
    assert [c.text for c in ours.cells] == ["0.02", "1.00", "5.00e+05", "1.5e−06", "rtol 0.001"]
    assert ours.cells[0].interval == "[0.019, 0.025]"
    assert [c.text for c in dopri5.cells] == ["0.66", "33.0", "–", "1e−06", "rtol 1e-7"]
    assert [line.cells[0].best for line in block.lines] == [True, False, False, False]
    assert (fixed.reference, floor.reference) == (False, True)


def test_the_headline_ranks_and_names_who_is_missing():
    assert headline(works(make_rows())[0][1]) == (
        "Quickest: hybridgen compiled, 0.02 s of processor time; next: diffrax tsit5 fixed, 4.50 "
        "times as long; slowest: torchdiffeq dopri5, 33.0 times as long. Left out: torchode tsit5 "
        "(not installed)."
    )
    assert headline(works(make_rows())[1][1]) == (
        "Quickest: hybridgen eager, 0.10 s of processor time."
    )


def test_parts_of_the_work_are_no_rivals():
    def row(name, value):
        return result_row(
            **SAME, contestant=name, metric="wall_time", value=value, unit="s", ratio_to="sum"
        )

    rows = [row("a part", 1.0), row("sum", 3.0), row("hybridgen sweep", 3.3)]
    assert headline(rows) == "Quickest: sum, 3.00 s; slowest: hybridgen sweep, 1.10 times as long."
    assert [line.cells[0].best for line in grid(rows)[1].lines] == [False, True, False]


def test_ratios_to_several_are_not_said_to_be_to_one():
    rows = make_rows()[:3]
    rows[2] = {**rows[2], "ratio_to": "torchdiffeq dopri5"}
    assert grid(rows)[0][1] == "ratio"


def test_counts_are_whole_and_nobody_may_finish():
    count = result_row(**SAME, contestant="a", metric="others_changed", value=12345, unit="1")
    heads, block = grid([count])
    assert heads == ["others changed"]
    assert block.lines[0].cells[0].text == "12,345"
    assert headline([{**count, "value": None, "knob": "why not"}]) == (
        "No contestant finished. Left out: a (why not)."
    )


def test_the_report_shows_the_tables_and_one_picture(run):
    html = write_report(run).read_text()
    assert html.count("data:image/png;base64,") == 1
    for words in ("bench_toy", "4.50", "torchdiffeq dopri5", "rtol 1e-7", "× hybridgen compiled"):
        assert words in html


def test_the_page_shows_the_tables_and_its_twin_has_every_row(run, tmp_path):
    page = write_results_page(run, tmp_path / "results").read_text()
    assert page == results_page(run)
    assert "![Time of each contestant](bench_toy.png)" in page
    assert "## pendulum, float64, cpu" in page
    assert "| hybridgen compiled | **0.02** [0.019, 0.025] | 1.00 |" in page
    twin = twin_rows(tmp_path / "results" / "bench_toy.json")
    assert len(twin) == len(make_rows())
    assert all(r in twin for r in make_rows())
    assert (tmp_path / "results" / "bench_toy.png").stat().st_size < 200_000


def test_the_terminal_shows_a_table_for_each_work_and_sentences():
    console = Console(width=120, file=io.StringIO())
    console.print(table(make_rows()))
    shown = console.file.getvalue()
    for words in ("pendulum, float64, cpu", "pendulum, float32, cpu", "33.0", "substeps 1"):
        assert words in shown
    assert "throughput" not in shown
    assert [s.partition(",")[0] for s in summary_of(make_rows())] == [
        "Quickest: hybridgen compiled",
        "Quickest: hybridgen eager",
    ]
