"""What the documentation shows is run: every docstring example, the README from top to bottom."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import hybridgen
from hybridgen import rng
from hybridgen.cli import app

README = Path(__file__).parents[1] / "README.md"
FENCE = re.compile(r"^```(python[^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def modules():
    """The names of all modules of the package, simulators and experiments included."""
    packages = [hybridgen, *map(importlib.import_module, ("hybridgen.simulators",
                                                          "hybridgen.experiments"))]  # fmt: skip
    for package in packages:
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                yield module.name


@pytest.fixture(autouse=True)
def _as_a_user(monkeypatch, tmp_path):
    """A folder of one's own, torch's own default dtype and generator: what a reader has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    with rng.scoped(0):
        yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", list(modules()))
def test_docstring_examples(name):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.FAIL_FAST)
    said = []
    for test in finder.find(module, name):
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_there_are_docstring_examples():
    finder = doctest.DocTestFinder()
    examples = [t for name in modules() for t in finder.find(importlib.import_module(name), name)]
    assert sum(bool(t.examples) for t in examples) > 20


def readme_blocks():
    """Yield the info string, the code and the first line number of each Python block."""
    text = README.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield match[1], match[2], text[: match.start(2)].count("\n")


def test_readme_runs():
    """The blocks run in order in one namespace; a block with a title is written to that file."""
    blocks = list(readme_blocks())
    assert blocks, "README.md has no ```python block"
    namespace = {"__name__": "readme"}
    for info, code, line in blocks:
        if title := re.search(r"title=[\"']?([\w./-]+)", info):
            Path(title[1]).write_text(code, encoding="utf-8")
        else:
            # leading newlines put the README's own line numbers into a traceback
            exec(compile("\n" * line + code, str(README), "exec"), namespace)


def test_readme_expert_passes_the_check():
    for info, code, _ in readme_blocks():
        if "title=my_plant.py" in info:
            Path("my_plant.py").write_text(code, encoding="utf-8")
    if "hybridgen check my_plant.py:expert" in README.read_text(encoding="utf-8"):
        result = CliRunner().invoke(app, ["check", "my_plant.py:expert"])
        assert result.exit_code == 0, result.output
