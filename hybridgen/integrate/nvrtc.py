"""Compile text for a GPU while the program runs, and start what came of it.

NVRTC, the compiler, and the driver are called as C libraries. `torch.cuda` can compile a kernel
too, but by private functions of new versions alone, and it passes a kernel nothing but tensors and
32-bit numbers. Compiled text is kept in the user's cache folder. It runs on torch's device, on
torch's current stream.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from hybridgen.integrate.building import kept
from hybridgen.integrate.recording import UnrecordableError

__all__ = ["Module", "assemble", "compiler", "driver", "stream"]

OPTIONS = ("--std=c++17", "--device-as-default-execution-space")
SLOW = (12, 0), (12, 4)
"""From which version on NVRTC takes minutes, and from which on it does not: 12.1 and 12.3 did."""
BLOCK = 64
"""How many threads go together: few, since ten thousand members should use the whole GPU."""


@cache
def compiler() -> ctypes.CDLL | None:
    """Return NVRTC, which comes with torch for CUDA, or `None`."""
    version = torch.version.cuda
    name = f"libnvrtc.so.{version.partition('.')[0] if version else '*'}"
    spec = find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob(f"*/lib/{name}")]
    for path in found:
        # NVRTC looks for it by its name, not beside itself, and finds it where it is loaded.
        _first([str(part) for part in path.parent.glob("libnvrtc-builtins.so.*")])
    return _first([*map(str, found), name, "libnvrtc.so"])


@cache
def driver() -> ctypes.CDLL | None:
    """Return the driver of NVIDIA's GPUs, or `None`."""
    return _first(["libcuda.so.1"])


def _first(names: list[str]) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:  # not here
            continue
    return None


def stream(device: torch.device) -> int:
    """Return torch's current stream on a device, as the driver knows it."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def assemble(text: str, capability: tuple[int, int]) -> bytes:
    """Return text compiled for a GPU, unless that was done before.

    Arguments:
        text: The C++.
        capability: What `torch.cuda.get_device_capability` says.

    Raises:
        UnrecordableError: If there is no compiler, or it fails.
    """
    library = compiler()
    if library is None:
        raise UnrecordableError(
            "there is no NVRTC here; torch for CUDA brings it (pip install nvidia-cuda-nvrtc-cu12)"
        )
    options = (*OPTIONS, "--gpu-architecture=sm_{}{}".format(*capability))
    numbers = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(*map(ctypes.byref, numbers))
    version = tuple(n.value for n in numbers)
    if SLOW[0] <= version < SLOW[1]:
        raise UnrecordableError(
            f"NVRTC {version[0]}.{version[1]} takes minutes for such a text; install torch "
            "for CUDA 12.4 or later"
        )

    def make(path: Path) -> None:
        path.write_bytes(_compiled(library, text, options))

    return kept([text, *options, str(version)], ".cubin", make).read_bytes()


def _compiled(library: ctypes.CDLL, text: str, options: tuple[str, ...]) -> bytes:
    program = ctypes.c_void_p()
    given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    code = library.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), b"field.cu", 0, None, None
    )
    try:
        code = code or library.nvrtcCompileProgram(program, len(options), given)
        if code:
            log = _bytes(library, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise UnrecordableError(f"NVRTC failed ({code}): {log.strip()[:500]}")
        return _bytes(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _bytes(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    """Return what NVRTC made of a program."""
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    room = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, room)
    return room.raw


class Module:
    """Compiled text on a GPU.

    Arguments:
        image: What `assemble` returned.
        device: The GPU.

    Raises:
        UnrecordableError: If the driver does not take it.
    """

    def __init__(self, image: bytes, device: torch.device) -> None:
        self._device, self._functions = device, dict[str, ctypes.c_void_p]()
        self._module = ctypes.c_void_p()
        with _current(device):
            _call("cuModuleLoadData", ctypes.byref(self._module), image)

    def launch(self, name: str, count: int, *args: Any, block: int = BLOCK) -> None:
        """Start a kernel, and do not wait for it.

        Arguments:
            name: Which of the text.
            count: How many threads.
            *args: What it is given, as objects of ctypes.
            block: How many threads go together.
        """
        places = (ctypes.c_void_p * len(args))(*map(ctypes.addressof, args))
        with _current(self._device):
            if name not in self._functions:
                found = self._functions[name] = ctypes.c_void_p()
                _call("cuModuleGetFunction", ctypes.byref(found), self._module, name.encode())
            sizes = [ctypes.c_uint(n) for n in (-(-count // block), 1, 1, block, 1, 1, 0)]
            where = ctypes.c_void_p(stream(self._device))
            _call("cuLaunchKernel", self._functions[name], *sizes, where, places, None)


@contextmanager
def _current(device: torch.device) -> Iterator[None]:
    """Make torch's context of a device that of this thread, whatever ran here before."""
    context, last = _context(device.index or 0), ctypes.c_void_p()
    _call("cuCtxPushCurrent_v2", context)
    try:
        yield
    finally:
        _call("cuCtxPopCurrent_v2", ctypes.byref(last))


@cache
def _context(index: int) -> ctypes.c_void_p:
    number, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuInit", ctypes.c_uint(0))
    _call("cuDeviceGet", ctypes.byref(number), ctypes.c_int(index))
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), number)
    return context


def _call(name: str, *args: Any) -> None:
    """Call the driver.

    Raises:
        UnrecordableError: If there is none, or it says that it failed.
    """
    library = driver()
    if library is None:
        raise UnrecordableError("there is no driver of NVIDIA's GPUs here (libcuda.so.1)")
    code = getattr(library, name)(*args)
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        why = (text.value or b"unknown").decode()
        raise UnrecordableError(f"the GPU's driver failed in {name} ({code}): {why}")
