"""Progress as it is told: to a function, to nobody, or as lines of JSON."""

import json
import os
import subprocess
import sys

import pytest

from hybridgen.progress import Progress, bar, emit, json_lines

STEP = Progress(3, 10, {"loss": 0.5, "step": 3.0, "valid": float("inf")})


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_function_is_told():
    told = []
    with bar(told.append, "training") as tell:
        tell(STEP)
    assert told == [STEP]


@pytest.mark.parametrize("progress", [False, None])
def test_silence(progress, capsys):
    with bar(progress, "training") as tell:
        tell(STEP)
    assert capsys.readouterr() == ("", "")


def test_lines_of_json(capsys):
    with json_lines(), bar(None, "seed 0: hybrid", learner="aphynity") as tell:
        tell(STEP)
    assert lines(capsys.readouterr().out) == [
        {"event": "progress", "what": "seed 0: hybrid", "learner": "aphynity", "step": 3,
         "total": 10, "loss": 0.5, "valid": None}
    ]  # fmt: skip
    assert "HYBRIDGEN_PROGRESS" not in os.environ


def test_a_bar_in_a_bar_speaks_once_and_others_are_told_too(capsys):
    told = []
    with json_lines(), bar(told.append, "outer") as outer, bar(outer, "inner") as inner:
        inner(STEP)
    assert [line["what"] for line in lines(capsys.readouterr().out)] == ["outer"]
    assert told == [STEP]


def test_silence_stays_silence(capsys):
    with json_lines(), bar(False, "training") as tell:
        tell(STEP)
    assert capsys.readouterr().out == ""


def test_processes_that_are_started_hear_of_it(monkeypatch):
    code = (
        "from hybridgen.progress import Progress, bar\n"
        "with bar(None, 'work') as tell:\n    tell(Progress(1, 2))\n"
    )
    with json_lines():
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert lines(found.stdout) == [{"event": "progress", "what": "work", "step": 1, "total": 2}]


def test_an_event(capsys):
    emit("finished", report="report.html")
    assert lines(capsys.readouterr().out) == [{"event": "finished", "report": "report.html"}]
