"""What the pages of docs/ show is run, from top to bottom, in an empty folder.

The fences of a page, by the words after the three backticks:

* `python title=NAME`: written to the file NAME;
* `python`: run, in one namespace for the page;
* `python raises`: run; what it raises is the `text` fence that follows;
* `console`: every `$ hybridgen check` is run and must print the lines that follow it. Other
  commands are there to be read.
"""

import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hybridgen import rng
from hybridgen.cli import app

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^```([a-z]+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def fences(page):
    """Yield language, other words, body and first line number of each fence."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield match[1], match[2].strip(), match[3], text[: match.start(3)].count("\n")


def pages():
    """The pages, relative to docs/, that have something to run."""
    for page in sorted(DOCS.rglob("*.md")):
        if any(language in ("python", "console") for language, *_ in fences(page)):
            yield page.relative_to(DOCS).as_posix()


@pytest.fixture(autouse=True)
def _as_a_user(monkeypatch, tmp_path):
    """An empty folder to import from, a wide terminal, torch's own dtype and generator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    modules, before = set(sys.modules), torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    with rng.scoped(0):
        yield
    torch.set_default_dtype(before)
    for name in set(sys.modules) - modules:
        if not (getattr(sys.modules[name], "__file__", None) or "/").startswith(str(tmp_path)):
            continue
        del sys.modules[name]


def squeezed(text):
    """The text with runs of space as one space, and no timing."""
    return re.sub(r"\d+ us", "N us", " ".join(text.split()))


def check_console(body):
    output = ""
    for line in body.splitlines():
        if line.startswith("$ "):
            words = line.split()[1:]
            output = ""
            if words[:2] == ["hybridgen", "check"]:
                result = CliRunner().invoke(app, words[1:])
                output = squeezed(result.output)
                assert output, line
        elif output and line.strip() not in ("", "..."):
            assert squeezed(line) in output


@pytest.mark.parametrize("name", list(pages()))
def test_page_runs(name):
    page = DOCS / name
    namespace, raised = {"__name__": "page"}, None
    for language, words, body, line in fences(page):
        # leading newlines put the page's own line numbers into a traceback
        code = "\n" * line + body
        if raised is not None:
            assert language == "text", f"{name}, line {line}: no text fence after `raises`"
            assert squeezed(body) == squeezed(raised), f"{name}, line {line}"
            raised = None
        elif language == "console":
            check_console(body)
        elif language == "python" and (title := re.search(r"title=([\w./-]+)", words)):
            Path(title[1]).write_text(body, encoding="utf-8")
        elif language == "python" and "raises" in words.split():
            with pytest.raises(Exception) as caught:  # noqa: PT011 the text fence is the match
                exec(compile(code, str(page), "exec"), namespace)
            raised = f"{caught.type.__name__}: {caught.value}"
        elif language == "python":
            exec(compile(code, str(page), "exec"), namespace)
    assert raised is None


def test_there_are_pages():
    assert len(list(pages())) >= 4
