"""The report, the table and the page say what the rows say, all of it, and nothing else."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hybridgen.errors import DataError
from hybridgen.report import (
    results_page,
    table,
    twin_rows,
    write_report,
    write_results_page,
)
from hybridgen.report.rows import check_rows, problems, summary
from hybridgen.report.run import facts, read_run
from hybridgen.report.sections import failure_counts
from hybridgen.report.sentences import headline, warnings
from hybridgen.report.tables import blocks, number
from hybridgen.report.twin import twin_text

_spec = importlib.util.spec_from_file_location(
    "run_directory", Path(__file__).parent / "fixtures" / "run_directory.py"
)
run_directory = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run_directory)
row, make_rows, make_run = run_directory.row, run_directory.make_rows, run_directory.make_run

TITLES = [
    "Results", "Error against shift", "Rollouts under shift", "Parameters, true against inferred",
    "Training curves", "What f_a learnt", "Failures", "How it was run",
]  # fmt: skip
HOSTILE = "<script>alert('x')</script>|`*$\\"


class Page(HTMLParser):
    """Tags, text and table lines of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.lines, self.images = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        if tag == "img":
            self.images.append(dict(attrs)["src"])

    def handle_data(self, data):
        if self.tags and self.tags[-1] not in ("style", "title"):
            self.words.append(data)
            if self.tags[-1] in ("td", "th", "span") and self.lines and data.strip():
                self.lines[-1][-1] += data.strip() + " "

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def page(report):
    return Page(report.read_text())


def small_groups(*names):
    groups = run_directory.make_groups(samples=6)
    return {k: v for k, v in groups.items() if any(k.startswith(f"/{n}") for n in names)}


def terminal(rows, width=140):
    console = Console(width=width, file=io.StringIO())
    console.print(table(rows))
    return console.file.getvalue()


def with_values(changes):
    """Return the rows with values over seeds replaced, by (name, metric, shift)."""
    rows = make_rows()
    for r in rows:
        key = r["learner"], r["inference"], r["metric"], r["shift"]
        if key in changes and r["seed"] == "mean" and r["parameter"] == "mean":
            r.update(value=changes[key], low=changes[key] - 0.1, high=changes[key] + 0.1)
    return rows


def test_importing_the_report_imports_neither_matplotlib_nor_xarray():
    code = (
        "import sys, hybridgen.report; "
        "assert not {'matplotlib', 'xarray', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_report_has_every_section(report, page):
    assert report.name == "report.html"
    for title in TITLES:
        assert title in page.text
    assert "Not shown" not in page.text
    assert len(page.images) == 7
    assert report.stat().st_size < 3_000_000


def test_the_report_is_self_contained(report, page):
    assert all(src.startswith("data:image/png;base64,") for src in page.images)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"(src|href)=\"(http|//|/)", report.read_text())


def test_the_report_tells_how_it_was_run(page):
    for words in ("hybridgen run pendulum_ood --set seeds=3", "0, 1, 2", "torch 2.13.0", "3da8eac",
                  "cpu two cores", "12.5 min", "learning_rate = 1e-3"):  # fmt: skip
        assert words in page.text


def test_the_table_of_the_report_equals_the_rows(page):
    for (learner, inference), metrics in run_directory.VALUES.items():
        for metric, values in metrics.items():
            unit = 0.15 if metric == "relative_error" else None
            for value in values:
                near = abs(value) * unit if unit else 0.35
                text = f"{number(value)} [{number(value - near)}, {number(value + near)}]"
                assert any(text in c.strip() for line in page.lines for c in line), (learner, text)
            assert inference in ("none", "amortised", "refined")
    block = page.lines[1:9]
    assert block[0] == ["relative error of the parameters (%) "]
    aphynity = next(line for line in block if line[0] == "APHYNITY ")
    assert [c.split()[0] for c in aphynity[1:]] == ["1.20", "18.0", "43.0", "72.4"]


def test_failures_are_counted_with_their_reasons(page):
    assert "4 failed of 960 predictions of the first seed: 3 diverged, 1 timeout" in page.text
    assert "5 answered after a retry" in page.text
    assert "The rows count 3 failed predictions a seed in 28 pairs" in page.text
    assert ["expert only ", "0 ", "0 ", "0 ", "3 "] in page.lines
    assert ["every other learner ", "0 ", "0 ", "0 ", "0 "] in page.lines


def test_no_failures_are_said_too(tmp_path):
    groups = small_groups("status")
    groups["/status"]["status"][:] = 0
    text = Page(write_report(make_run(tmp_path, [row()], groups)).read_text()).text
    assert "0 failed of 96 predictions of the first seed; 0 answered after a retry." in text
    assert "The rows hold no count of failed predictions." in text


def test_missing_files_are_said_plainly(tmp_path):
    page = Page(write_report(make_run(tmp_path, bare=True)).read_text())
    for title in TITLES:
        assert title in page.text
    assert page.text.count("the run directory holds no diagnostics.zarr") == 5
    assert "the run directory holds no provenance.json" in page.text
    assert "the run directory holds no config.toml" in page.text
    assert len(page.images) == 2  # the rows alone fill these


@pytest.mark.parametrize("kept", ["rollouts", "parameters", "history", "residual", "status"])
def test_each_group_may_be_absent(tmp_path, kept):
    text = Page(write_report(make_run(tmp_path, [row()], small_groups(kept))).read_text()).text
    for name in {"rollouts", "parameters", "residual", "status"} - {kept}:
        assert f"diagnostics.zarr has no group “{name}”" in text
    assert ("has no training history" in text) == (kept != "history")


def test_a_group_that_lacks_a_variable_is_said(tmp_path):
    groups = small_groups("residual")
    groups["/residual"] = groups["/residual"].drop_vars("support")
    text = Page(write_report(make_run(tmp_path, [row()], groups)).read_text()).text
    assert "the group “residual” of diagnostics.zarr lacks support" in text


def test_hostile_strings_are_escaped(tmp_path):
    names = ("problem", "variant", "learner", "shift", "unit")
    rows = [row(**{n: HOSTILE for n in names}, split="ood", distance=1.0), row(metric=HOSTILE),
            row(parameter=HOSTILE), row(), row(learner="published", variant=HOSTILE),
            row(learner=HOSTILE, shift="far", split="ood", distance=0.5)]  # fmt: skip
    path = make_run(tmp_path, rows, small_groups("status"))
    (path / "config.toml").write_text(HOSTILE)
    (path / "provenance.json").write_text(
        json.dumps({HOSTILE: {HOSTILE: HOSTILE}, "command": HOSTILE})
    )
    page = Page(write_report(path).read_text())
    assert "script" not in page.tags
    assert HOSTILE in page.text
    markdown = results_page(path)
    outside = [ln for ln in markdown.splitlines() if not ln.startswith("    ")]
    assert not any("<script" in ln for ln in outside)
    tables = [t.splitlines() for t in markdown.split("\n\n") if t.startswith("| ")]
    bars = [{len(re.findall(r"(?<!\\)\|", ln)) for ln in t} for t in tables]
    assert bars == [{3}, {4}, {5}]  # bars of a line: two more than its test sets
    assert HOSTILE in terminal(rows, width=400)


def test_headline_where_augmentation_wins():
    first, second = headline(make_rows())
    assert "“far”, 1.2 training widths outside" in first
    assert "falls from 72.4 % (APHYNITY) to 1.42 % (APHYNITY+)" in first
    assert "refined on the observed window it is 0.78 %" in first
    assert "beats every baseline on all 3 shifted test sets" in second
    assert "−6.31 nats, against −1.40 nats of the best baseline (APHYNITY)" in second
    assert "within the intervals" not in first + second


def test_headline_where_augmentation_loses():
    rows = with_values({
        ("aphynity+", "amortised", "relative_error", "far"): 90.0,
        ("network_only", "amortised", "log_mse_summed", "mid"): -7.0,
        ("mean", "none", "log_mse_summed", "far"): -6.35,
    })  # fmt: skip
    first, second = headline(rows)
    assert "does not fall: it goes from 72.4 % (APHYNITY) to 90.0 % (APHYNITY+)" in first
    assert "does not beat every baseline" in second
    assert "on “mid” network only wins with −7.00 nats against −6.00 nats" in second
    assert "“far” mean baseline wins with −6.35 nats against −6.31 nats, within the int" in second
    assert "best on 1 of 3 shifted test sets" in second


def test_headline_says_what_the_regularisers_do():
    ablation = [
        row(learner=name, value=value, low=value - 0.1, high=value + 0.1)
        for name, value in (("hvae_general", 1.0), ("hvae_unregularised", 3.5))
    ]
    *before, last = headline([*make_rows(), *ablation])
    assert before == headline(make_rows())
    assert "has 3.50 times the parameter error in support: 3.50 % instead of 1.00 %." in last
    names = [line.name for line in blocks([*make_rows(), *ablation])[1][0].lines]
    assert "HVAE, general residual, no regularisers" in names


def test_headline_compares_refined_with_refined():
    rows = make_rows()
    rows += [
        {**r, "learner": "aphynity", "value": -9.0, "low": None, "high": None}
        for r in rows
        if row_is(r, "aphynity+", "refined", "log_mse_summed")
    ]
    sentences = headline(rows)
    assert "APHYNITY+ beats every baseline" in sentences[1]
    assert "APHYNITY+ refined does not beat every baseline" in sentences[2]
    assert "APHYNITY refined wins with −9.00 nats" in sentences[2]


def row_is(r, learner, inference, metric):
    return (r["learner"], r["inference"], r["metric"], r["seed"]) == (
        learner,
        inference,
        metric,
        "mean",
    )


def test_headline_without_what_it_speaks_of():
    assert headline([row()]) == ["The rows hold no test set outside the training support."]
    far = dict(shift="far", split="ood", distance=None, metric="log_mse_summed", unit="nats")
    (only,) = headline([row(**far, value=-2.0), row(**far, learner="mean", value=1.0)])
    assert only == (
        "No learner was trained with expert augmentation; on the test set “far”, "
        "APHYNITY forecasts best (−2.00 nats)."
    )
    first, second = headline([row(**far, learner="aphynity+")])
    assert "no parameter error of APHYNITY+" in first
    assert "no forecast error of APHYNITY+ beside a baseline" in second


def test_true_model_and_published_are_no_baselines():
    rows = with_values({("true_model", "none", "log_mse_summed", "far"): -99.0})
    assert "beats every baseline" in headline(rows)[1]


def test_warnings_of_a_network_that_swallows_the_expert():
    assert warnings(make_rows()) == []
    share, cosine = warnings([row(metric="share_fa", value=80.0, unit="%"),
                              row(metric="cosine_fa_expert", value=-0.9, unit="")])  # fmt: skip
    assert "f_a carries 80% of dy/dt" in share
    assert "swallows the expert" in share
    assert "0.90" in cosine


def test_warnings_reach_the_report_and_the_page(tmp_path):
    path = make_run(tmp_path, [row(), row(metric="share_fa", value=0.8, unit="")], bare=True)
    assert Page(write_report(path).read_text()).text.count("swallows the expert") == 2
    assert "swallows the expert" in results_page(path)


def test_terminal_table_has_the_rows_published_ones_beside_ours():
    drawn = terminal(make_rows())
    lines = [ln.split() for ln in drawn.splitlines()]
    at = next(i for i, ln in enumerate(lines) if ln[:1] == ["APHYNITY+"])
    assert lines[at][1::2] == ["1.10", "1.20", "1.30", "1.42"]
    assert lines[at + 1][:3] == ["published", "APHYNITY+", "6.00"]
    assert lines[at + 1][-2] == "10.0"
    heads = r"in support +near \(0.35 widths\) +mid \(0.7 widths\) +far \(1.2 widths\)"
    assert re.search(heads, drawn)


def test_the_best_shifted_value_is_bold_and_references_are_not():
    rows = with_values({("true_model", "none", "relative_error", "far"): 0.01})
    drawn = table(rows)
    cells = [c for column in drawn.columns for c in column.cells if not isinstance(c, str)]
    bold = [c.plain.split()[0] for c in cells if any(s.style == "bold" for s in c.spans)]
    assert bold == ["0.74", "−8.10", "0.75", "−8.20", "0.78", "−8.27"]


def test_several_problems_are_kept_apart():
    rows = make_rows(1) + [{**r, "problem": "rlc", "variant": "textbook"} for r in make_rows(1)
                           if r["learner"] != "published"]  # fmt: skip
    titles = [title for title, _ in problems(rows)]
    assert titles == ["pendulum, alpha 0-0.6", "rlc, textbook"]
    assert [sum(r["learner"] == "published" for r in m) for _, m in problems(rows)] == [4, 0]
    assert "rlc, textbook: relative error" in terminal(rows, 200)


def test_summary_takes_the_row_over_seeds_or_the_only_seed():
    rows = [row(seed=0, value=1.0), row(seed=1, value=3.0), row(value=2.0)]
    assert [r["value"] for r in summary(rows)] == [2.0]
    assert [r["value"] for r in summary(rows[:1])] == [1.0]
    with pytest.raises(DataError, match="seed='mean'"):
        summary(rows[:2])
    with pytest.raises(DataError, match="2 rows"):
        summary([row(), row()])


def test_failure_counts_name_unknown_codes():
    status = run_directory.make_groups(samples=6)["/status"]["status"]
    status[:] = 0
    status[0, 0, 0], status[0, 0, 1] = 9, -1
    assert failure_counts(status) == [
        ("expert_only", "none", "not written", 1),
        ("expert_only", "none", "status 9", 1),
    ]


def test_page_has_headline_picture_values_and_provenance(tmp_path):
    path = make_run(tmp_path, groups=small_groups("status"))
    text = results_page(path)
    assert text.startswith("# pendulum\\_ood\n")
    assert headline(make_rows())[1] in text
    assert "![Error against shift](pendulum_ood.png)" in text
    assert "| APHYNITY | far | 72.4 [61.5, 83.3] | 66.0 [60.0, 72.0] |" in text
    assert "| APHYNITY+ refined | 0.70 [0.59, 0.80] | **0.74** [0.63, 0.85] |" in text
    assert "    hybridgen run pendulum_ood --set seeds=3\n" in text
    assert "- run time: 12.5 min" in text
    assert "[pendulum_ood.json](pendulum_ood.json)" in text


def test_write_results_page_writes_page_twin_and_picture(tmp_path):
    run = make_run(tmp_path / "run", groups=small_groups("status"))
    page = write_results_page(run, tmp_path / "docs" / "results")
    assert sorted(p.name for p in page.parent.iterdir()) == [
        "pendulum_ood.json", "pendulum_ood.md", "pendulum_ood.png",
    ]  # fmt: skip
    assert page.read_text() == results_page(run)
    twin = page.with_suffix(".json")
    assert in_order(twin_rows(twin)) == in_order(json.loads((run / "results.json").read_text()))
    assert json.loads(twin.read_text())["provenance"] == run_directory.PROVENANCE
    assert page.with_suffix(".png").stat().st_size <= 200_000


def in_order(rows):
    """Rows to six digits, as lines in the order of the alphabet."""
    short = [
        {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in r.items()} for r in rows
    ]
    return sorted(json.dumps(r, sort_keys=True) for r in short)


def test_the_twin_says_once_what_rows_have_in_common(tmp_path):
    rows = [
        row(learner=learner, shift=shift, split=split, value=value, low=None, seed=seed)
        for learner in ("hvae", "hvae+")
        for shift, split in (("none", "valid"), ("far", "ood"))
        for seed, value in ((0, 1.23456789), (1, 10**7 + 1), ("mean", None))
    ]
    text = twin_text({"seeds": [0, 1]}, rows)
    assert [text.count(word) for word in ("pendulum_ood", '"far"', '"hvae"', "1.23457")] == [
        1, 1, 6, 4,
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(text)
    rounded = [{**r, "value": 1.23457 if r["seed"] == 0 else r["value"]} for r in rows]
    assert in_order(twin_rows(tmp_path / "a.json")) == in_order(rounded)
    # a row a line, so that a change of it is a change of its line
    other = twin_text({"seeds": [0, 1]}, [{**rows[0], "value": 2.5}, *rows[1:]])
    assert sum(a != b for a, b in zip(text.split("\n"), other.split("\n"), strict=True)) == 1
    # and one row alone is all common
    (tmp_path / "b.json").write_text(twin_text(None, rows[:1]))
    assert twin_rows(tmp_path / "b.json") == rounded[:1]


@pytest.mark.parametrize("text", ["[", "[]", '{"rows": []}', '{"common": {}, "tables": [{}]}'])
def test_what_is_no_twin(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not the JSON of a results page .*--page"):
        twin_rows(tmp_path / "a.json")


def test_an_experiment_cannot_write_elsewhere(tmp_path):
    run = make_run(tmp_path, [row(experiment="../elsewhere")], bare=True)
    with pytest.raises(DataError, match=re.escape("../elsewhere")):
        write_results_page(run, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_rows_are_checked():
    with pytest.raises(DataError, match="at least one row"):
        check_rows([])
    with pytest.raises(DataError, match="row 0 lacks seed"):
        check_rows([{k: v for k, v in row().items() if k != "seed"}])
    with pytest.raises(DataError, match="did you mean 'metric'"):
        check_rows([row(metrik=1)])
    with pytest.raises(DataError, match="value='high'"):
        check_rows([row(value="high")])
    assert check_rows([row(value=float("nan"))])[0]["value"] is None


def test_a_directory_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(DataError, match=re.escape("no results.json")):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("[{")
    with pytest.raises(DataError, match="not JSON"):
        read_run(tmp_path)
    make_run(tmp_path, [row(), row(experiment="other")], bare=True)
    with pytest.raises(DataError, match="one experiment"):
        read_run(tmp_path)
    make_run(tmp_path, [row()], bare=True)
    (tmp_path / "provenance.json").write_text("[]")
    with pytest.raises(DataError, match="expected a mapping"):
        read_run(tmp_path)


def test_missing_values_are_dashes(tmp_path):
    rows = [row(value=None), row(shift="far", split="ood", distance=None, value=5.0)]
    assert [ln.split() for ln in terminal(rows).splitlines() if "APHYNITY" in ln] == [
        ["APHYNITY", "–", "5.00"]
    ]
    page = Page(write_report(make_run(tmp_path, rows, bare=True)).read_text())
    assert ["APHYNITY ", "– ", "5.00 "] in page.lines


def test_facts_are_words():
    assert facts(None) == []
    given = {"seeds": [0, 1], "run_time_s": 60.0, "command": ["hybridgen", "run", "a b"]}
    assert dict(facts(given)) == {
        "seeds": "0, 1", "run time": "60 s", "command": "hybridgen run 'a b'",
    }  # fmt: skip
    again = {"resumed": [{"started": "noon", "git_revision": "abc"}]}
    assert facts(again) == [("resumed", "started noon, git revision abc")]


def test_training_history_with_gaps_is_drawn(tmp_path):
    groups = small_groups("history")
    data = groups["/history/aphynity"]
    data["valid"][:] = np.nan
    data["fit"] = data["fit"] - 1.0  # a likelihood may be negative
    assert len(Page(write_report(make_run(tmp_path, [row()], groups)).read_text()).images) == 2
