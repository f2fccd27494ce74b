"""Compiles the kernels for this machine's processor, once, and loads them."""

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

_HERE = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")
_WIDEST = ("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()
_TYPES = {torch.float32: "float", torch.float64: "double"}
_PATIENCE = 120  # seconds for the compiler
_SEAL = hashlib.sha256().digest_size


class CannotCompileError(Exception):
    """There can be no kernels here; says why."""


class Kernels:
    """The kernels for one type of number; each takes addresses, counts and a number of threads.

    Attributes:
        lanes: how many numbers a vector has.
        tiles: whether there are ``..._tiles``, whose products are in bfloat16.
        window: the width of the window of SSIM.
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
        convolution = (*pair, address, flag, *pair, *size, flag)
        self.convolve = function("convolve", *convolution, result=flag)
        correlation = (*pair, address, count, address, *size, flag)
        self.weights_gradient = function("weights_gradient", *correlation, result=flag)
        self.tiles = bool(function("tiles", result=flag)())
        if self.tiles:
            self.convolve_tiles = function("convolve_tiles", *convolution, result=flag)
            self.weights_gradient_tiles = function(
                "weights_gradient_tiles", *correlation, result=flag
            )
        self.fold_rows = function(
            "fold_rows", *pair, flag, address, *size, *size, flag, result=flag
        )
        self.unfold_weights = function("unfold_weights", address, address, count, flag)
        self.activate = function("activate", *(address,) * 3, *size, real, real, flag)
        self.activate_gradient = function("activate_gradient", *(address,) * 4, *size, real, flag)
        self.pool = function("pool", address, address, *size, flag)
        self.pool_gradient = function("pool_gradient", address, address, *size, flag)
        self.similarities = function(
            "similarities", *(address,) * 5, *size, real, flag, result=flag
        )
        self.errors = function("errors", *(address,) * 3, *size, flag)
        self.read_rows = function("read_rows", flag, *size, address, address, flag, result=flag)
        self.lanes: int = function("lanes", result=count)()
        self.window: int = function("window", result=count)()


def kernels(dtype: torch.dtype) -> Kernels | None:
    """Return the kernels for a type of number, or None; ``obstacle`` says why there are none."""
    return _loaded(dtype)[0] if dtype in _TYPES else None


def obstacle() -> str:
    """Say why there are no kernels on this machine; nothing where there are."""
    return _loaded(torch.float32)[1]


@cache
def _loaded(dtype: torch.dtype) -> tuple[Kernels | None, str]:
    try:
        return Kernels(build(dtype), _TYPES[dtype]), ""
    except CannotCompileError as error:
        return None, str(error)


def build(dtype: torch.dtype) -> ctypes.CDLL:
    """Load the kernels, compiled now unless they lie whole in a folder that only this user writes.

    Args:
        dtype: float32 or float64.

    Raises:
        CannotCompileError: they are turned off, there is no C compiler, it fails, or no folder
            can keep and run what it makes.
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
    options = [compiler, *_FLAGS, *_WIDEST, f"-DREAL={_TYPES[dtype]}", "-fPIC", "-shared"]
    linked = ["-Wl,--as-needed", str(threads)]
    command = [*options, str(_HERE / "kernels.c"), *linked]
    # A home may be shared by machines of several kinds: each has a library of its own. One serves
    # all copies of the same sources, wherever they lie.
    machine = [*options, *linked, torch.__version__, _processor()]
    identity = hashlib.sha256("\n".join(machine).encode())
    for source in sorted(_HERE.glob("*.[ch]")):
        identity.update(source.read_bytes())
    name = f"kernels-{identity.hexdigest()[:16]}.so"
    reasons = []
    for folder in _folders():
        try:
            with _private(folder) as opened:
                if not _is_whole(opened / name):
                    _compile(command, opened / name)
                return ctypes.CDLL(str(opened / name))
        except CannotCompileError as error:
            reasons.append(f"{folder}: {error}")
    raise CannotCompileError("; ".join(dict.fromkeys(reasons)) or "there is no folder for them")


def _folders() -> Iterator[Path]:
    """Yield where the library may lie: the user's cache, then a folder for temporary files."""
    with suppress(RuntimeError):  # no HOME, and no entry for this user in passwd
        cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        if not cache_home.is_absolute():  # to be ignored, says its specification
            cache_home = Path("~/.cache").expanduser()
        yield cache_home / "fastmri-workbench"
    with suppress(FileNotFoundError):  # there is none that can be written
        yield Path(tempfile.gettempdir(), f"fastmri-workbench-{os.geteuid()}")


@contextmanager
def _private(folder: Path) -> Iterator[Path]:
    """Open a folder, made unless it is there; its path holds even if somebody moves it.

    Raises:
        CannotCompileError: it cannot be made, somebody else owns it or can write to it, or what
            is done in it fails.
    """
    opened = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if not _is_own(os.fstat(opened)):
            raise CannotCompileError("others own it or can write to it")
        yield Path(f"/proc/{os.getpid()}/fd/{opened}")
    except OSError as error:
        # The loader's own errors have a text alone, with the file's path before it.
        raise CannotCompileError(error.strerror or str(error).partition(": ")[2]) from error
    finally:
        if opened is not None:
            os.close(opened)


def _is_own(found: os.stat_result) -> bool:
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & others


def _is_whole(library: Path) -> bool:
    """Whether a library is this user's own and as it was compiled; a damaged one ends Python."""
    try:
        found = library.lstat()
        if not stat.S_ISREG(found.st_mode) or not _is_own(found):
            return False
        content = library.read_bytes()
    except OSError:
        return False
    return _seal(library, content[:-_SEAL]) == content[-_SEAL:]


def _compile(command: list[str], library: Path) -> None:
    """Compile a library; it is there whole or not at all, with its hash as its last bytes."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, "whole.so")
        _run([*command, "-o", str(made)], folder)
        content = made.read_bytes()
        with made.open("ab") as file:
            file.write(_seal(library, content))
        made.chmod(0o700)
        made.replace(library)


def _seal(library: Path, content: bytes) -> bytes:
    return hashlib.sha256(library.name.encode() + content).digest()


def _processor() -> str:
    """Say what the processor can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def _run(command: list[str], folder: str) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env=os.environ | {"TMPDIR": folder},
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise CannotCompileError(f"{command[0]} failed: {said[0] if said else error}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotCompileError(f"{command[0]} took over {_PATIENCE} seconds") from error
