"""Run directories: nothing is lost or mixed up, and everything says where it came from."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from hybridgen import provenance, rundir
from hybridgen.config import config, load_toml
from hybridgen.errors import DataError, OutputExistsError
from hybridgen.rundir import RunDir


@config
class Config:
    steps: int = 10
    seeds: tuple[int, ...] = (0, 1)


def create(path, cfg=None, **options):
    return RunDir.create(
        path, experiment="toy", config=cfg or Config(), command=["hybridgen", "run"], **options
    )


def stated(path):
    return json.loads((path / "provenance.json").read_text())


def test_a_new_run_says_what_it_is_before_it_starts(tmp_path):
    path = tmp_path / "deep" / "a b"
    run = create(path, Config(steps=3))
    assert load_toml(Config, path / "config.toml") == Config(steps=3)
    found = stated(path)
    assert found["experiment"] == "toy"
    assert found["command"] == ["hybridgen", "run"]
    assert found["seeds"] == [0, 1]
    assert found["versions"] == provenance.versions()
    assert found["finished"] is None
    assert found["run_time_s"] == 0.0
    assert run.read_rows() == []
    assert sorted(os.listdir(path)) == ["config.toml", "provenance.json"]


def test_the_run_time_is_noted_at_the_end(tmp_path):
    with create(tmp_path / "a") as run:
        time.sleep(0.05)
    found = stated(run.path)
    assert 0.045 <= found["run_time_s"] < 5
    assert found["finished"] >= found["started"]


def test_an_interrupted_run_keeps_its_time_and_is_not_finished(tmp_path):
    path = tmp_path / "a"

    def interrupted():
        with create(path) as run:
            run.write_rows([{"value": 1.0}])
            time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    first = stated(path)
    assert first["finished"] is None
    assert first["run_time_s"] >= 0.045
    with create(path, resume=True) as run:
        assert run.read_rows() == [{"value": 1.0}]
        time.sleep(0.05)
    second = stated(path)
    assert second["run_time_s"] >= first["run_time_s"] + 0.045
    assert second["started"] == first["started"]
    assert second["finished"] is not None
    assert len(second["resumed"]) == 1


def test_rows_are_plain_json(tmp_path):
    run = create(tmp_path / "a")
    run.write_rows(
        [{"value": np.float64(0.5), "n": np.int64(3), "low": torch.tensor(1.0), "high": np.nan}]
    )
    assert run.read_rows() == [{"value": 0.5, "n": 3, "low": 1.0, "high": None}]
    text = (run.path / "results.json").read_text()
    assert "NaN" not in text
    run.write_rows([{"value": float("-inf"), "seed": "mean"}])
    assert run.read_rows() == [{"value": None, "seed": "mean"}]


def test_damaged_rows_are_an_error(tmp_path):
    run = create(tmp_path / "a")
    (run.path / "results.json").write_text('[{"value": 1')
    with pytest.raises(DataError, match=r"results\.json cannot be read .*--overwrite"):
        run.read_rows()


def test_an_old_run_is_never_overwritten_unasked(tmp_path):
    path = tmp_path / "a"
    create(path).write_rows([{"value": 1.0}])
    with pytest.raises(OutputExistsError, match=r"--resume to go on .* --overwrite"):
        create(path)
    assert json.loads((path / "results.json").read_text()) == [{"value": 1.0}]


def test_overwriting_moves_aside(tmp_path):
    for value in (1.0, 2.0, 3.0):
        create(tmp_path / "a", overwrite=True).write_rows([{"value": value}])
    found = {p.name: json.loads((p / "results.json").read_text())[0]["value"]
             for p in tmp_path.iterdir()}  # fmt: skip
    assert found == {"a.old-1": 1.0, "a.old-2": 2.0, "a": 3.0}


def test_only_a_run_is_moved_aside(tmp_path, monkeypatch):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match="holds no run; give another directory"):
        create(tmp_path / "thesis")
    with pytest.raises(OutputExistsError, match="holds no run, or is the current directory"):
        create(tmp_path / "thesis", overwrite=True)
    with pytest.raises(OutputExistsError, match="holds no run"):
        create(tmp_path / "thesis", resume=True)
    with pytest.raises(OutputExistsError, match="is a file"):
        create(tmp_path / "thesis" / "chapter.tex")
    create(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(OutputExistsError, match="is the current directory"):
        create(".", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    assert create(tmp_path / "a").read_rows() == []


def test_resuming_with_another_configuration_shows_the_difference(tmp_path):
    create(tmp_path / "a", Config(steps=10))
    with pytest.raises(OutputExistsError, match="another configuration") as caught:
        create(tmp_path / "a", Config(steps=20), resume=True)
    lines = str(caught.value).splitlines()
    assert "-steps = 10" in lines
    assert "+steps = 20" in lines
    assert not any("seeds" in line for line in lines[1:])


def test_resuming_with_other_versions_is_refused(tmp_path, monkeypatch):
    create(tmp_path / "a")
    monkeypatch.setattr(rundir, "versions", lambda: {**provenance.versions(), "torch": "9.9"})
    with pytest.raises(OutputExistsError, match=r"other versions \(torch .* -> 9\.9\)"):
        create(tmp_path / "a", resume=True)


def test_resuming_what_never_began_begins_it(tmp_path):
    assert create(tmp_path / "a", resume=True).read_rows() == []


def test_overwrite_and_resume_exclude_each_other(tmp_path):
    with pytest.raises(OutputExistsError, match="exclude each other"):
        create(tmp_path / "a", overwrite=True, resume=True)


def test_a_single_seed_is_a_seed(tmp_path):
    @config
    class Single:
        seed: int = 7

    create(tmp_path / "a", Single())
    assert stated(tmp_path / "a")["seeds"] == [7]


def test_killed_while_writing_rows(tmp_path):
    """Whatever the moment of a kill, the rows on disk are those of some moment before."""
    code = (
        "import sys\n"
        "from hybridgen.rundir import RunDir\n"
        "from hybridgen.config import config\n"
        "@config\n"
        "class Config:\n    pass\n"
        "run = RunDir.create(sys.argv[1], experiment='toy', config=Config(), command=[])\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    run.write_rows([{'value': i} for i in range(n)])\n"
        "    print(n, flush=True)\n"
    )
    for i, delay in enumerate((0.02, 0.1, 0.3)):
        path = tmp_path / str(i)
        process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        with process:
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        rows = json.loads((path / "results.json").read_text())
        assert rows == [{"value": j} for j in range(len(rows))]
        assert rows
