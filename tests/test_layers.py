"""The house: what may import what, and how long things may be."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import hybridgen

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "hybridgen"

# Imports go towards the beginning of this list. Modules of one line do not import each other; the
# modules of a folder (a package) may.
LAYERS = [
    {"errors", "naming", "version"},
    {"config", "files", "forward", "progress", "provenance", "rng", "threads"},
    {"params", "operators", "signals", "units"},
    {"foreign", "integrate"},
    {"generative"},
    {"batch", "expert"},
    {"driving", "noise", "shift"},
    {"io", "pairing", "rundir", "store"},
    {"models", "reading", "simulator", "splitting"},
    {"checkpoint"},
    {"evaluation", "refinement"},
    {"starting"},
    {"source"},
    {"train"},
    {"augmentation", "diagnostics", "sweeping", "testing"},
    {"plots"},
    {"plots_fit", "plots_sweep"},
    {"report"},
    {"installation", "locating"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# What a part of the house must not import, wherever the import stands.
FORBIDDEN = {
    "models": {"xarray", "dask", "matplotlib"},
    "generative": {"xarray", "dask", "matplotlib"},
    "integrate": {"xarray", "dask", "matplotlib"},
    "evaluation": {"matplotlib"},
    "diagnostics": {"matplotlib"},
    "plots": {"torch"},
    "report": {"torch"},
}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def part(path):
    """The module or folder of the library that a file belongs to."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(path):
    """Yield the dotted names that a file imports, `from a import b` as a.b, with line numbers."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: write the import absolutely"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def target(name):
    """The part of the library that an imported name belongs to; a lazy name to its module."""
    head = name.split(".")[1]
    return hybridgen._MODULES.get(head, head).split(".")[0]


LIBRARY_FILES = sorted(p for p in LIBRARY.rglob("*.py") if p != LIBRARY / "__init__.py")
SIMULATORS = sorted((ROOT / "simulators").glob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
everything = pytest.mark.parametrize(
    "path", LIBRARY_FILES + SIMULATORS + EXPERIMENTS, ids=lambda p: str(p.relative_to(ROOT))
)
library = pytest.mark.parametrize("path", LIBRARY_FILES, ids=lambda p: str(p.relative_to(LIBRARY)))


def test_the_table_is_complete():
    assert sum(map(len, LAYERS)) == len(LEVEL)
    assert {part(p) for p in LIBRARY_FILES} - LEVEL.keys() == set()
    assert len(LIBRARY_FILES) > 20


@library
def test_imports_go_down(path):
    own = part(path)
    for name, line in imports(path):
        if not name.startswith("hybridgen."):
            assert name.split(".")[0] not in FORBIDDEN.get(own, set()), f"line {line}: {name}"
            continue
        other = target(name)
        assert other not in ("simulators", "experiments"), f"line {line} imports {name}"
        assert other == own or LEVEL[other] < LEVEL[own], f"line {line}: {own} imports {name}"


@pytest.mark.parametrize("path", SIMULATORS, ids=lambda p: p.stem)
def test_simulators_stand_on_public_names(path):
    for name, line in imports(path):
        if name.startswith("hybridgen."):
            assert not any(word.startswith("_") for word in name.split(".")), (
                f"line {line}: {name}"
            )
            other = target(name)
            assert other == "simulators" or LEVEL[other] <= LEVEL["simulator"], (
                f"line {line} imports {name}"
            )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_experiments_stand_on_public_names(path):
    for name, line in imports(path):
        if name.startswith("hybridgen."):
            assert not any(word.startswith("_") for word in name.split(".")), (
                f"line {line}: {name}"
            )
            assert target(name) not in ("cli", "locating"), f"line {line} imports {name}"


@library
def test_public_means_listed(path):
    """Public functions and classes are in `__all__`, and what is in `__all__` is there."""
    module = tree(path)
    listed = [
        ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    defined, bound = set(), set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            bound |= {ast.unparse(t) for t in node.targets}
        elif isinstance(node, ast.AnnAssign):
            bound.add(ast.unparse(node.target))
        elif isinstance(node, ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    public = {name for name in defined if not name.startswith("_")}
    names = set(listed[0]) if listed else set()
    assert public <= names, f"not in __all__: {sorted(public - names)}"
    assert names <= defined | bound, f"in __all__ only: {sorted(names - defined - bound)}"


def test_no_module_has_the_name_of_an_exported_name():
    """`hybridgen.fit` is a function; a module of that name would replace it when imported."""
    packages = ["hybridgen", *(
        f"hybridgen.{m.name}" for m in pkgutil.iter_modules([str(LIBRARY)]) if m.ispkg
    )]  # fmt: skip
    exported = {name for package in packages for name in importlib.import_module(package).__all__}
    modules = {p.stem for p in LIBRARY_FILES}
    assert exported & modules == set()
    assert {"fit", "solve", "odeint", "refine", "evaluate"} <= exported


@everything
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            length = node.end_lineno - first + 1
            assert length <= 60, f"{node.name} has {length} lines"
