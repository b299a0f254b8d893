"""Configurations: what is read back is what was written, and every mistake is named."""

import enum
import subprocess
import sys
from dataclasses import FrozenInstanceError, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridgen.config import config, from_mapping, load_toml, to_mapping, to_toml, with_overrides
from hybridgen.errors import ConfigError


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@config
class Fit:
    steps: int = 1000
    lr: float = 1e-3
    stop: float | None = None

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; write a positive number")


@config
class Study:
    fit: Fit = Fit()
    stages: tuple[Fit, ...] = (Fit(steps=10),)
    seeds: tuple[int, ...] = (0,)
    start: Fit | None = None
    learner: Literal["mean", "aphynity"] = "aphynity"
    mode: Mode = Mode.FAST
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    path: Path = Path("a b")
    title: str = ""
    quick: bool = False


floats = st.floats(allow_nan=False)
fits = st.builds(Fit, steps=st.integers(0), lr=floats, stop=st.none() | floats)
studies = st.builds(
    Study,
    fit=fits,
    stages=st.lists(fits, max_size=3).map(tuple),
    seeds=st.lists(st.integers(), max_size=3).map(tuple),
    start=st.none() | fits,
    learner=st.sampled_from(["mean", "aphynity"]),
    mode=st.sampled_from(Mode),
    ranges=st.dictionaries(st.text(max_size=5), st.tuples(floats, floats), max_size=3),
    title=st.text(),
    quick=st.booleans(),
)


@given(study=studies)
def test_toml_round_trip(study):
    import tomllib

    assert from_mapping(Study, tomllib.loads(to_toml(study))) == study


@given(study=studies)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_file_round_trip(study, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(to_toml(study), encoding="utf-8", newline="")
    assert load_toml(Study, path) == study


@given(study=studies, fit=fits)
def test_an_override_changes_its_field_and_nothing_else(study, fit):
    changed = with_overrides(study, [f"fit.lr={fit.lr!r}", f"fit.steps={fit.steps}"])
    assert changed == replace(study, fit=replace(study.fit, lr=fit.lr, steps=fit.steps))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("fit.steps=200", Study(fit=Fit(steps=200))),
        (" fit.lr = 1 ", Study(fit=Fit(lr=1.0))),
        ("seeds=[0, 1]", Study(seeds=(0, 1))),
        ("learner=mean", Study(learner="mean")),
        ('learner="mean"', Study(learner="mean")),
        ("mode=slow", Study(mode=Mode.SLOW)),
        ("stages.0.steps=3", Study(stages=(Fit(steps=3),))),
        ("start.steps=3", Study(start=Fit(steps=3))),
        ("ranges.omega0=[0.5, 1.5]", Study(ranges={"omega0": (0.5, 1.5)})),
        ("title=a=b", Study(title="a=b")),
        ("title=two words", Study(title="two words")),
        ("quick=true", Study(quick=True)),
        ("path=c/d", Study(path=Path("c/d"))),
    ],
)
def test_overrides(override, expected):
    assert with_overrides(Study(), [override]) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit.stpes=3", r"fit\.stpes is unknown; did you mean 'fit\.steps'\?"),
        ("stpes=3", r"stpes is unknown; did you mean 'fit\.steps'\?"),
        ("fti.steps=3", r"fti is unknown; did you mean 'fit'\?"),
        ("stages.0.setps=3", r"stages\.0\.setps is unknown; did you mean 'stages\.0\.steps'\?"),
        ("fit.q=3", r"fit\.q is unknown; known: 'fit\.steps', 'fit\.lr', 'fit\.stop'"),
        ("fit.steps=many", r"fit\.steps is 'many'; it should be a valid integer"),
        ("fit.steps=1.0", r"fit\.steps is 1\.0; it should be a valid integer"),
        ("fit.steps=true", r"fit\.steps is True; it should be a valid integer"),
        ('fit.steps="200"', r"fit\.steps is '200'; it should be a valid integer"),
        ("quick=1", r"quick is 1; it should be a valid boolean"),
        ("learner=hvae", r"learner is 'hvae'; it should be 'mean' or 'aphynity'"),
        ("fit=3", r"fit is 3; it should be a table"),
        ("fit.steps.x=3", r"fit\.steps is 1000, which has no parts"),
        ("stages.1.steps=3", r"stages is a list of 1 values; stages\.1 is not in it"),
        ("stages.last.steps=3", r"stages\.last is not in it"),
        ("fit.steps=-1", r"fit: steps is -1; write a positive number"),
        ("seeds=[0,", r"'seeds=\[0,': the value is not TOML"),
        ("fit.lr=", r"the value is not TOML"),
        ("fit.steps=1\nquick=true", r"more than one value"),
        ("fit.steps", r"write path=value"),
        ("=3", r"write path=value"),
    ],
)
def test_wrong_overrides(override, message):
    with pytest.raises(ConfigError, match=message):
        with_overrides(Study(), [override])


def test_all_errors_at_once():
    values = {"fit": {"stpes": 1, "lr": "x"}, "seeds": [0, "1"], "ranges": {"k": [1.0]}}
    with pytest.raises(ConfigError) as caught:
        from_mapping(Study, values, source="study.toml")
    assert str(caught.value).splitlines() == [
        "study.toml: 4 errors",
        "  fit.lr is 'x'; it should be a valid number",
        "  fit.stpes is unknown; did you mean 'fit.steps'?",
        "  seeds.1 is '1'; it should be a valid integer",
        "  ranges.k.1 is missing",
    ]


def test_members_of_a_union_share_a_line():
    @config
    class Either:
        u: int | bool = 0

    with pytest.raises(ConfigError, match=r"u is 'x'; it should be a valid integer or be a valid"):
        from_mapping(Either, {"u": "x"})


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        load_toml(Study, tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("seeds = [0\n\n[fit]\n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML: .*line 3"):
        load_toml(Study, tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml is not TOML"):
        load_toml(Study, tmp_path / "binary.toml")
    (tmp_path / "wrong.toml").write_text("[fit]\nsetps = 3\n")
    with pytest.raises(ConfigError, match=r"^wrong\.toml: fit\.setps is unknown"):
        load_toml(Study, tmp_path / "wrong.toml")


def test_the_constructor_checks_as_well():
    assert Fit(3) == Fit(steps=3)
    with pytest.raises(ConfigError, match=r"Fit: stpes is unknown; did you mean 'steps'"):
        Fit(stpes=3)
    with pytest.raises(ConfigError, match=r"Fit: lr is 'x'; it should be a valid number$"):
        Fit(3, "x")
    with pytest.raises(ConfigError, match=r"Fit got 4 values; it has steps, lr, stop"):
        Fit(1, 2, 3, 4)
    with pytest.raises(ConfigError, match=r"^Fit: steps is -1; write a positive number"):
        Fit(steps=-1)
    with pytest.raises(FrozenInstanceError):
        Fit().steps = 3


def test_none_has_no_toml():
    @config
    class Optional:
        stop: float | None = 1.0

    assert "stop" not in to_toml(Fit(stop=None))
    with pytest.raises(ConfigError, match="null"):
        to_toml(Optional(stop=None))
    assert with_overrides(Optional(stop=None), []) == Optional(stop=None)


def test_mapping_is_plain():
    mapping = to_mapping(Study(ranges={"k": (0, 1)}))
    assert mapping["ranges"] == {"k": [0.0, 1.0]}
    assert mapping["stages"] == [{"steps": 10, "lr": 1e-3, "stop": None}]
    assert mapping["mode"] == "fast"
    assert mapping["path"] == "a b"


def test_imports_neither_torch_nor_numpy():
    code = (
        "import sys, hybridgen.config, hybridgen.provenance, hybridgen.rundir\n"
        "print([m for m in ('torch', 'numpy', 'xarray', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
