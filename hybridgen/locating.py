"""What the command line names: experiments and simulators by name, a user's expert by file.

Listing reads docstrings without importing anything, since an import of an experiment takes torch
along. `hybridgen` itself imports no experiment and no simulator; this is the one door to them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hybridgen.errors import ConfigError, ExpertError, nearest

__all__ = ["experiments", "expert_of", "load_experiment", "load_object", "simulators"]


def experiments() -> dict[str, str]:
    """List the experiments: those modules of `hybridgen.experiments` that define `main`.

    Returns:
        The first lines of their docstrings by name, sorted.

    Example:
        >>> "demo" in experiments()
        True
    """
    return _members("hybridgen.experiments", "main")


def simulators() -> dict[str, str]:
    """List the simulators: those modules of `hybridgen.simulators` that define `simulator`.

    Returns:
        The first lines of their docstrings by name, sorted.

    Example:
        >>> simulators()["pendulum"]
        'The damped pendulum, and an expert that does not know of the damping.'
    """
    return _members("hybridgen.simulators", "simulator")


def _members(package: str, defines: str) -> dict[str, str]:
    """Return the first docstring lines of the modules that define a name, importing none."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return {}
    found = {}
    for module in pkgutil.iter_modules(spec.submodule_search_locations):
        inner = module.module_finder.find_spec(module.name, None)
        if inner is not None and inner.origin is not None:
            tree = ast.parse(Path(inner.origin).read_text(encoding="utf-8"))
            if any(defines in _defined(node) for node in tree.body):
                found[module.name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return dict(sorted(found.items()))


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def load_experiment(name: str) -> ModuleType:
    """Import an experiment.

    Arguments:
        name: Its name, one of `experiments()`.

    Returns:
        The module; it has `Config`, a configuration, and `main(cfg, run)`, which returns rows.

    Raises:
        ConfigError: If there is no such experiment, or it lacks one of the two.
    """
    full = f"hybridgen.experiments.{name}"
    known = experiments()
    if name not in known and full not in sys.modules:
        raise ConfigError(f"no experiment {name!r}; {nearest(name, known)}")
    module = importlib.import_module(full)
    for part in ("Config", "main"):
        if not hasattr(module, part):
            raise ConfigError(
                f"experiment {name!r} has no {part!r}; see hybridgen list for others."
            )
    return module


@contextlib.contextmanager
def load_object(target: str) -> Iterator[Any]:
    """Import an object from a user's own file or module.

    While the context lasts, the folder of the file (or the current one) can be imported from.

    Arguments:
        target: `"FILE.py:NAME"` or `"package.module:NAME"`.

    Yields:
        The object.

    Raises:
        ExpertError: If there is no such file, module or name, or importing it fails; the message
            names the line.
    """
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise ExpertError(f"got {target!r}; write FILE.py:NAME or package.module:NAME.")
    is_file = where.endswith(".py") or "/" in where or "\\" in where
    folder = Path(where).resolve().parent if is_file else Path.cwd()
    sys.path.insert(0, str(folder))
    try:
        module = _import_file(Path(where)) if is_file else _import_module(where)
        public = {k: v for k, v in vars(module).items() if not k.startswith("_")}
        if name not in public:
            raise ExpertError(f"{where} has no {name!r}; {nearest(name, _own(module, public))}")
        yield public[name]
    finally:
        sys.path.remove(str(folder))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        known = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ExpertError(f"there is no file {path}; {nearest(path.name, known)}")
    # a name of its own, so that a file called random.py replaces no module
    spec = importlib.util.spec_from_file_location(f"_hybridgen_user_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise ExpertError(f"{path} is no Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _explained(path.name, str(path.resolve())):
        spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ExpertError(
            f"there is no module {name!r} that Python can import from here; "
            "write the path of the file, FILE.py:NAME."
        )
    with _explained(name, found.origin or ""):
        return importlib.import_module(name)


@contextlib.contextmanager
def _explained(name: str, file: str) -> Iterator[None]:
    """Turn whatever a user's file raises into one sentence with the line of the file."""
    try:
        yield
    except SyntaxError as error:
        raise ExpertError(f"{name}, line {error.lineno}: syntax error, {error.msg}.") from error
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        at = f", line {lines[-1]}" if lines else ""
        raise ExpertError(f"{name}{at}: {type(error).__name__}: {error}") from error


def _own(module: ModuleType, public: Mapping[str, Any]) -> list[str]:
    """Return the names that the module defines itself, rather than imports."""

    def imported(value: Any) -> bool:
        if inspect.isclass(value) or inspect.isroutine(value):
            return value.__module__ != module.__name__
        return inspect.ismodule(value)

    return [name for name, value in public.items() if not imported(value)]


def expert_of(value: Any, name: str) -> Any:
    """Return the expert that an object is, or holds.

    Arguments:
        value: An ODEExpert or an Expert, or a Simulator, whose expert is meant.
        name: What to call the object in an error message.

    Raises:
        ExpertError: If it is neither; a plain function is told how to become one.
    """
    from hybridgen.expert import Expert, ODEExpert
    from hybridgen.simulator import Simulator

    if isinstance(value, Simulator):
        return value.expert
    if isinstance(value, (ODEExpert, Expert)):
        return value
    if inspect.isroutine(value):
        raise ExpertError(
            f"{name} is a plain function; declare what its numbers mean: "
            f"ODEExpert({name}, states=(State('y', 'm'),), params=(Param('k', '1/s', 0, 1),))."
        )
    raise ExpertError(
        f"{name} is a {type(value).__name__}; name an ODEExpert or a Simulator (or an Expert)."
    )
