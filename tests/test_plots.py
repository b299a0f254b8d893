"""Figures: what is drawn is what the rows and arrays say, labelled, and without global traces."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from hybridgen import naming, plots
from hybridgen.errors import DataError

_spec = importlib.util.spec_from_file_location(
    "run_directory", Path(__file__).parent / "fixtures" / "run_directory.py"
)
run_directory = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run_directory)


@pytest.fixture(scope="module")
def groups():
    return run_directory.make_groups(samples=20)


@pytest.fixture
def fig():
    with plots.style():
        yield plots.figure(8, 5)


def draw_all(fig, groups):
    """Draw every figure into a subfigure of one, and return the subfigures by name."""
    history = {k.split("/")[-1]: v for k, v in groups.items() if k.startswith("/history")}
    parts = dict(zip(["error", "rollouts", "parameters", "training", "residual", "failures"],
                     fig.subfigures(6, 1), strict=True))  # fmt: skip
    plots.error_against_shift(
        run_directory.make_rows(), "relative_error", parts["error"].subplots()
    )
    plots.rollouts(groups["/rollouts"], parts["rollouts"])
    plots.parameters(groups["/parameters"], parts["parameters"])
    plots.training_curves(history, parts["training"])
    plots.residual_map(groups["/residual"], parts["residual"])
    plots.failures([("aphynity", "far", "diverged", 3)], 20, parts["failures"].subplots())
    return parts


def lines(ax):
    """Return the labelled lines of axes by their label."""
    return {ln.get_label(): ln for ln in ax.lines if not ln.get_label().startswith("_")}


def test_no_global_state_changes(groups):
    before = dict(matplotlib.rcParams)
    with plots.style():
        figure = plots.figure(8, 24)
        draw_all(figure, groups)
        figure.savefig(io.BytesIO(), dpi=20)
    assert dict(matplotlib.rcParams) == before


def test_import_brings_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys, hybridgen.plots as p; assert 'matplotlib' not in sys.modules\n"
        "p.png(p.figure(1, 1)); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_axis_is_labelled_with_a_unit(groups):
    with plots.style():
        parts = draw_all(plots.figure(8, 24), groups)
    for name, part in parts.items():
        outer = [ax for ax in part.axes if ax.get_label() != "<colorbar>"]
        assert any(ax.get_xlabel() for ax in outer), name
        if name != "failures":  # its y axis names learners and test sets
            words = [ax.get_ylabel() for ax in part.axes if ax.get_ylabel()]
            assert words
            assert all(w.endswith(")") for w in words), words
    assert parts["residual"].axes[0].get_ylabel() == "theta_dot (rad/s)"


def test_error_lines_are_the_rows_over_seeds(fig):
    ax = fig.add_subplot()
    plots.error_against_shift(run_directory.make_rows(), "relative_error", ax)
    drawn = lines(ax)["APHYNITY+"]
    np.testing.assert_array_equal(drawn.get_xdata(), list(run_directory.SHIFTS.values()))
    np.testing.assert_array_equal(
        drawn.get_ydata(), run_directory.VALUES["aphynity+", "amortised"]["relative_error"]
    )
    assert ax.get_yscale() == "log"
    assert {"mean baseline", "true-model fit"} <= set(lines(ax))
    for name, line in lines(ax).items():
        assert (line.get_linestyle() == "--") == (name in ("mean baseline", "true-model fit"))
    assert "published" not in lines(ax)


def test_single_seeds_are_faint_and_only_if_several(fig):
    axes = fig.subplots(1, 2)
    for ax, seeds in zip(axes, (3, 1), strict=True):
        plots.error_against_shift(run_directory.make_rows(seeds), "log_mse_summed", ax)
    faint = [[ln for ln in ax.lines if ln.get_alpha() is not None] for ax in axes]
    assert len(faint[0]) == 3 * 5  # three seeds of each learner that is no reference level
    assert faint[1] == []


def test_a_single_seed_alone_is_drawn(fig):
    ax = fig.add_subplot()
    rows = [
        run_directory.row(seed=0, value=4.0),
        run_directory.row(seed=0, shift="far", distance=1.0),
    ]
    plots.error_against_shift(rows, "relative_error", ax)
    np.testing.assert_array_equal(lines(ax)["APHYNITY"].get_ydata(), [4.0, 1.0])


def test_a_shift_without_distance_is_named_not_drawn(fig):
    ax = fig.add_subplot()
    rows = [run_directory.row(), run_directory.row(shift="noise", distance=None, split="ood")]
    plots.error_against_shift(rows, "relative_error", ax)
    assert "noise" in ax.get_title(loc="left")
    assert lines(ax)["APHYNITY"].get_xdata().tolist() == [0.0]


def test_published_values_stand_at_the_distance_of_our_test_set(fig):
    ax = fig.add_subplot()
    rows = [run_directory.row(shift="far", distance=1.2)]
    rows += [
        {**rows[0], "learner": "published", "variant": "aphynity+", "distance": None, "value": 9.0}
    ]
    plots.error_against_shift(rows, "relative_error", ax)
    (container,) = ax.containers
    assert container.lines[0].get_xydata().tolist() == [[1.2, 9.0]]
    assert container.lines[0].get_color() == naming.colour("aphynity+")


@pytest.mark.parametrize(("metric", "exact"), [("relative_error", 1e-4), ("log_mse_summed", -28)])
def test_an_exact_fit_of_the_true_model_does_not_squash_the_learners(fig, metric, exact):
    ax = fig.add_subplot()
    values = {"aphynity": 9.0, "aphynity+": 2.0, "mean": 4.0, "true_model": exact}
    rows = [run_directory.row(learner=n, metric=metric, value=v) for n, v in values.items()]
    plots.error_against_shift(rows, metric, ax)
    assert exact < ax.get_ylim()[0] < 2.0
    assert any("↓" in text.get_text() for text in ax.texts)


def test_end_labels_do_not_overlap(fig):
    ax = fig.add_subplot()
    names = ["expert_only", "network_only", "aphynity", "aphynity+", "hvae", "hvae+"]
    rows = [run_directory.row(learner=n, value=1.0 + 1e-4 * i) for i, n in enumerate(names)]
    plots.error_against_shift(rows, "relative_error", ax)
    heights = sorted(text.xyann[1] for text in ax.texts)
    assert len(heights) == len(names)
    assert np.diff(heights).min() > 0.069
    assert heights[0] >= 0
    assert heights[-1] <= 1


def test_an_absent_metric_is_an_error(fig):
    with pytest.raises(DataError, match="coverage90"):
        plots.error_against_shift(run_directory.make_rows(), "coverage90", fig.add_subplot())


def test_one_colour_a_learner_in_every_figure(groups):
    assert len({naming.colour(n) for n in naming._NAMES}) == len(naming._NAMES)
    with plots.style():
        parts = draw_all(plots.figure(8, 24), groups)
    wanted = naming.colour("aphynity")
    assert lines(parts["error"].axes[0])["APHYNITY"].get_color() == wanted
    assert lines(parts["rollouts"].axes[0])["APHYNITY"].get_color() == wanted
    panel = next(ax for ax in parts["parameters"].axes if ax.get_title(loc="left") == "APHYNITY")
    assert wanted in {ln.get_color() for ln in panel.lines}
    panel = next(ax for ax in parts["training"].axes if ax.get_title(loc="left") == "APHYNITY")
    assert lines(panel)["loss"].get_color() == wanted


def test_parameters_count_what_cannot_be_seen(fig, groups):
    data = groups["/parameters"].copy(deep=True)
    data["inferred"][1, 3, 0] = 1e6
    plots.parameters(data, fig)
    notes = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert "3 failed" in notes
    assert "1 off scale" in notes


def test_failed_rollouts_are_named(fig, groups):
    data = groups["/rollouts"].copy(deep=True)
    data["predicted"][2, 0, 0, 30:] = np.nan
    plots.rollouts(data, fig)
    assert fig.axes[0].get_title(loc="left") == "in support, failed: APHYNITY"


def test_rollouts_survive_a_member_without_observations(fig, groups):
    data = groups["/rollouts"].copy(deep=True)
    data["observed"][1] = np.nan
    plots.rollouts(data, fig)
    assert np.isfinite(fig.axes[2].get_ylim()).all()


def test_residual_scale_is_that_of_the_supported_region(fig, groups):
    data = groups["/residual"].copy(deep=True)
    data["f_a"][:, 0, 0] = 1e9  # a corner without data
    plots.residual_map(data, fig)
    meshes = [c for ax in fig.axes for c in ax.collections if hasattr(c, "get_clim")]
    assert max(m.get_clim()[1] for m in meshes if m.get_clim()[1] is not None) < 10


def test_residual_map_without_truth_or_gaps(fig, groups):
    data = groups["/residual"].drop_vars("truth")
    plots.residual_map(data.assign(support=data["support"] * 0 + 1), fig)
    assert [ax.get_title(loc="left") for ax in fig.axes[:2]] == [
        "theta, learnt",
        "theta_dot, learnt",
    ]


def test_failures_stack_by_reason(fig):
    ax = fig.add_subplot()
    counts = [("aphynity", "far", "diverged", 3), ("aphynity", "far", "timeout", 2)]
    plots.failures(counts, 50, ax)
    bars = [(b.get_x(), b.get_width()) for b in ax.patches]
    assert bars == [(0, 3), (3, 2)]
    assert "of 50" in ax.get_xlabel()


def test_names_are_text_not_formulas(fig):
    ax = fig.add_subplot()
    rows = [run_directory.row(learner=r"$\nonsense{$")]
    plots.error_against_shift(rows, "relative_error", ax)
    assert plots.png(fig).startswith(b"\x89PNG")


def test_save_keeps_within_its_limit(tmp_path):
    fig = plots.figure(4, 4)
    fig.add_subplot().imshow(np.random.default_rng(0).random((600, 600)))
    path = plots.save(fig, tmp_path / "noise.png")
    with Image.open(path) as picture:
        assert picture.size[0] < 800
    assert path.stat().st_size <= 200_000
    with pytest.raises(DataError, match="at most 2000"):
        plots.png(fig, limit=2000)


def test_small_pictures_are_sharp():
    with plots.style():
        fig = plots.figure(3, 2)
        fig.add_subplot().plot([0, 1])
    assert Image.open(io.BytesIO(plots.png(fig))).size == (600, 400)


def test_a_forecast_that_blows_up_is_written_at_the_edge(fig):
    common = {"inference": "amortised", "parameter": "mean", "metric": "log_mse_summed"}
    common |= {"unit": "nat", "seed": "mean", "low": None, "high": None}
    rows = [
        {**common, "learner": learner, "shift": shift, "distance": d, "value": value}
        for learner, values in (("mean", (-2.0, -1.0)), ("aphynity", (-5.0, 91.25)))
        for shift, d, value in zip(("none", "far"), (0.0, 0.5), values, strict=True)
    ]
    ax = fig.subplots()
    plots.error_against_shift(rows, "log_mse_summed", ax)
    assert ax.get_ylim() == (-6.0, 7.0)
    assert "91.2 ↑" in [t.get_text() for t in ax.texts]
    calm = fig.add_axes((0, 0, 1, 1))
    plots.error_against_shift(rows[:3], "log_mse_summed", calm)
    assert not any("↑" in t.get_text() for t in calm.texts)
