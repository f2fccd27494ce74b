"""Compiles the kernels for this machine's processor, once, and loads them."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

_HERE = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")
_TYPES = {torch.float32: "float", torch.float64: "double"}
_PATIENCE = 120  # seconds for the compiler


class CannotCompileError(Exception):
    """There can be no kernels here; says why."""


class Kernels:
    """The kernels for one type of number; each takes addresses, counts and a number of threads.

    Attributes:
        lanes: the width of the narrowest image that can be convolved.
    """

    def __init__(self, library: ctypes.CDLL, of: str) -> None:
        address, count, flag, real = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_double,
        )

        def function(name: str, *arguments: type, result: type | None = None) -> Any:
            found = getattr(library, f"{name}_{of}")
            found.argtypes, found.restype = arguments, result
            return found

        pair, size = (address, address, count, count), (count, count, count)
        self.convolve = function("convolve", *pair, address, flag, *pair, *size, flag, result=flag)
        self.weights_gradient = function(
            "weights_gradient", *pair, address, count, address, *size, flag, result=flag
        )
        self.activate = function("activate", *(address,) * 3, *size, real, real, flag)
        self.activate_gradient = function("activate_gradient", *(address,) * 4, *size, real, flag)
        self.activate_last = function(
            "activate_last", address, address, *size, real, real, flag, result=flag
        )
        self.activate_last_gradient = function(
            "activate_last_gradient", *(address,) * 4, *size, real, flag, result=flag
        )
        self.pool = function("pool", address, address, *size, flag)
        self.pool_gradient = function("pool_gradient", address, address, *size, flag)
        self.similarities = function(
            "similarities", *(address,) * 5, *size, real, flag, result=flag
        )
        self.errors = function("errors", *(address,) * 3, *size, flag)
        self.read_rows = function("read_rows", flag, *size, address, address, flag, result=flag)
        self.lanes: int = function("lanes", result=count)()


def kernels(dtype: torch.dtype) -> Kernels | None:
    """Return the kernels for a type of number, or None; ``obstacle`` says why there are none."""
    return _loaded(dtype)[0] if dtype in _TYPES else None


def obstacle() -> str:
    """Say why there are no kernels on this machine; nothing where there are."""
    return _loaded(torch.float32)[1]


@cache
def _loaded(dtype: torch.dtype) -> tuple[Kernels | None, str]:
    try:
        return Kernels(ctypes.CDLL(str(build(dtype))), _TYPES[dtype]), ""
    except (CannotCompileError, OSError) as error:
        return None, str(error)


def build(dtype: torch.dtype) -> Path:
    """Compile the kernels unless they lie compiled in the user's cache; return the library.

    Args:
        dtype: float32 or float64.

    Raises:
        CannotCompileError: they are turned off, or there is no C compiler, or it fails.
    """
    if os.environ.get("WORKBENCH_KERNELS") == "off":
        raise CannotCompileError("WORKBENCH_KERNELS=off")
    # The threads must be torch's own: two sets of them would wait in each other's way.
    threads = next((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"), None)
    if platform.system() != "Linux" or threads is None:
        raise CannotCompileError("they are for Linux, and a torch that works with libgomp")
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise CannotCompileError("there is no C compiler: install gcc, or name one in CC")
    command = [compiler, *_FLAGS, f"-DREAL={_TYPES[dtype]}", "-fPIC", "-shared"]
    command += [str(_HERE / "kernels.c"), "-Wl,--as-needed", str(threads)]
    # A home may be shared by machines of several kinds: each has a library of its own.
    identity = hashlib.sha256("\n".join([*command, torch.__version__, _processor()]).encode())
    for source in sorted(_HERE.glob("*.[ch]")):
        identity.update(source.read_bytes())
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    library = Path(
        cache_home, "fastmri-workbench", f"kernels-{identity.hexdigest()[:16]}.so"
    ).expanduser()
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:
                _run([*command, "-o", f"{folder}/whole.so"])
                Path(folder, "whole.so").replace(library)
        except OSError as error:
            raise CannotCompileError(f"{library.parent}: {error.strerror or error}") from error
    return library


def _processor() -> str:
    """Say what the processor can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise CannotCompileError(f"{command[0]} failed: {said[0] if said else error}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotCompileError(f"{command[0]} took over {_PATIENCE} seconds") from error
