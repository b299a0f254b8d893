"""Every command line that the documentation shows is one that the programs understand.

Nothing is run. A line is taken apart as a shell does, and parsed as its program would: options
that do not exist, lack a value or have one of a wrong kind are found.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from hybridgen.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(bash|console|sh|yaml)\b[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WRONG_USE = typer.BadParameter.__base__  # typer has a copy of click's UsageError, or click's own
VARIABLES = {"$address": "/shared/dask-7.json", "$SCRATCH": "/scratch/me", "$(hostname)": "n1"}


def shell_lines(body):
    """Yield commands without prompt, comment, launcher and what sends them to the background."""
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        words = words[1:] if words[:1] == ["srun"] else words
        yield words[:-1] if words[-1:] == ["&"] else words


def containers(body):
    """Yield the commands of a manifest of Kubernetes."""
    for listed in re.findall(r"command: \[(.*?)\]", body, re.DOTALL):
        yield [word.strip().strip('"') for word in listed.split(",")]


def commands(page):
    """Yield the commands of a page that call one of our programs, or one of dask."""
    for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
        for words in (containers if language == "yaml" else shell_lines)(body):
            if words and words[0] in ("hybridgen", "dask"):
                yield words


def filled(word):
    """The word as the shell hands it on, with a value for each variable."""
    for name, value in VARIABLES.items():
        word = word.replace(name, value)
    assert "$" not in word, f"give {word} a value in VARIABLES"
    return word


def understood(words, programs):
    """Return the values of all parameters of the command that words call."""
    name, *arguments = map(filled, words[1:])
    assert name in programs, f"{words[0]} has no command {name}"
    return programs[name].make_context(name, arguments).params


SHOWN = [(page, words) for page in PAGES for words in commands(page)]
OURS = [(page, words) for page, words in SHOWN if words[0] == "hybridgen"]
NAMES = [f"{page.stem}-{words[1]}-{i}" for i, (page, words) in enumerate(OURS)]


@pytest.mark.parametrize("words", [words for _, words in OURS], ids=NAMES)
def test_a_command_is_understood(words):
    understood(words, get_command(app).commands)


def test_the_recipes_for_clusters_are_among_them():
    sweeps = [words for page, words in OURS if page.name == "sweeps.md" and "--resume" in words]
    slurm, kubernetes = (understood(words, get_command(app).commands) for words in sweeps)
    assert (slurm["n"], slurm["scheduler"]) == (10**7, "tcp://n1:8786")
    assert (kubernetes["n"], kubernetes["force"], kubernetes["json"]) == (10**7, True, True)
    assert slurm["name"] == "plant.py:simulator"
    assert kubernetes["name"] == "/code/plant.py:simulator"
    assert slurm["resume"]
    assert kubernetes["resume"]


def test_the_commands_of_dask_are_understood():
    pytest.importorskip("distributed")
    from distributed.cli import dask_scheduler, dask_worker

    programs = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    shown = [words for _, words in SHOWN if words[0] == "dask"]
    scheduler, worker = (understood(words, programs) for words in shown)
    assert scheduler["scheduler_file"] == worker["scheduler_file"] == "/shared/dask-7.json"
    assert (worker["n_workers"], worker["nthreads"]) == ("1", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hybridgen simulate pendulum -n 10 --out a.zarr --worker 3", "No such option"),
        ("hybridgen simulate pendulum -n ten --out a.zarr", "valid int"),
        ("hybridgen simulate pendulum --out a.zarr", "Missing option"),
        ("hybridgen augment", "Missing (argument|option)"),
        ("hybridgen simulat pendulum", "no command simulat"),
    ],
)
def test_a_command_that_is_not_understood_is_found(line, message):
    with pytest.raises((AssertionError, WRONG_USE)) as info:
        understood(line.split(), get_command(app).commands)
    text = str(info.value)
    if isinstance(info.value, WRONG_USE):
        text = info.value.format_message()
    assert re.search(message, text), text
