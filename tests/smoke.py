"""A suite for the installed wheel, run from an empty directory: is all packed, does it work?

Run it with the Python of the environment that has the wheel: `python -P tests/smoke.py`.
"""

import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
MY_EXPERT = """
import torch
from hybridgen import ODEExpert, Param, State

def decay(t, y, z_e):
    return torch.stack([-z_e.rate * y[..., 0]], dim=-1)

expert = ODEExpert(decay, states=(State("level", "m"),), params=(Param("rate", "1/s", 0.1, 1.0),))
"""


def command(*arguments, expect=""):
    """Run `hybridgen` in the current directory and look for a text in its output."""
    print("+ hybridgen", *arguments, flush=True)
    path = Path(sys.executable).with_name("hybridgen")
    done = subprocess.run([path, *arguments], capture_output=True, text=True)
    if done.returncode != 0 or expect not in done.stdout:
        sys.exit(f"exit code {done.returncode}, {expect!r} expected\n{done.stdout}\n{done.stderr}")


def modules():
    """Import every module of the installed package and return their names."""
    import hybridgen

    if Path(hybridgen.__file__).is_relative_to(CHECKOUT / "hybridgen"):
        sys.exit(f"hybridgen is imported from the checkout, {hybridgen.__file__}")
    names = [m.name for m in pkgutil.walk_packages(hybridgen.__path__, "hybridgen.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    for name in hybridgen.__all__:
        getattr(hybridgen, name)
    return set(names)


def in_checkout():
    """The names of the modules of the checkout, as they are to be imported."""
    folders = {"hybridgen": "hybridgen", "simulators": "hybridgen.simulators",
               "experiments": "hybridgen.experiments"}  # fmt: skip
    for folder, package in folders.items():
        for path in (CHECKOUT / folder).rglob("*.py"):
            parts = [package, *path.relative_to(CHECKOUT / folder).with_suffix("").parts]
            name = ".".join(parts).removesuffix(".__init__")
            if name != "hybridgen":
                yield name


def main():
    """Run the suite."""
    packed = modules()
    print(f"imported {len(packed)} modules", flush=True)
    if missing := set(in_checkout()) - packed:
        sys.exit(f"not in the wheel: {sorted(missing)}")
    if not resources.files("hybridgen").joinpath("py.typed").is_file():
        sys.exit("py.typed is not in the wheel")
    Path("my_expert.py").write_text(MY_EXPERT)
    version = metadata.version("hybridgen")
    command("--version", expect=version)
    command("--help", expect="demo")
    command("list", expect="pendulum")
    command("doctor", expect=version)
    command("check", "my_expert.py:expert", expect="gradients")
    command("run", "demo", "--preset", "small", "--out", "small", expect="report")
    command("demo", "--out", "demo", expect="report")
    for name in ("results.json", "config.toml", "provenance.json", "report.html"):
        if not Path("demo", name).is_file():
            sys.exit(f"the demo wrote no {name}")
    print("smoke: all passed", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
        os.chdir("/")
