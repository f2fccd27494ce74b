"""What a node tries for ``workbench.compute.smoke``: what mounts of storage take, and what it has.

``python -m workbench.compute.smoke_node DATA STORE ATTEMPT`` leaves ``result-ATTEMPT.json`` in
STORE: question -> "" where it held, else why not. The first attempt then fails, as it should.
"""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

CONTENT = b"written" * 1000
APPENDED = b"appended" * 1000
KEPT = "kept.bin"
FAILS = 3
"""Exit code of the first attempt."""


def _write(folder: Path) -> None:
    (folder / KEPT).write_bytes(CONTENT)
    _compare(folder / KEPT, CONTENT)


def _append(folder: Path) -> None:
    with (folder / KEPT).open("ab") as file:
        file.write(APPENDED)
    _compare(folder / KEPT, CONTENT + APPENDED)


def _rename(folder: Path) -> None:
    (folder / "before").write_bytes(CONTENT)
    (folder / "before").replace(folder / "after")
    _compare(folder / "after", CONTENT)


def _change(folder: Path) -> None:
    file = folder / "changed"
    file.write_bytes(CONTENT)
    os.truncate(file, 10)
    _compare(file, CONTENT[:10])
    os.utime(file, (1e9, 1e9))
    if file.stat().st_mtime != 1e9:
        raise ValueError("the time of a file stays as it was")
    file.unlink()
    if file.exists():
        raise ValueError("a deleted file is still there")


def _lock(folder: Path) -> None:
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _compare(file: Path, expected: bytes) -> None:
    if (found := file.read_bytes()) != expected:
        raise ValueError(f"{len(found):,} bytes are read back, {len(expected):,} were written")


TRIES: dict[str, Callable[[Path], None]] = {
    "write": _write,
    "append": _append,
    "rename": _rename,
    "change": _change,
    "lock": _lock,
}


def tried(attempt: Callable[[], object]) -> str:
    """Return "" where something works, else its error in one line."""
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def first(data: Path, store: Path) -> dict[str, str]:
    """Try everything that one node can."""
    found = {"read": tried(lambda: _compare(data / "given.bin", CONTENT))}
    for place, folder in (("store", store), ("outputs", Path("outputs"))):
        for name, attempt in TRIES.items():
            found[f"{place} {name}"] = tried(lambda a=attempt, f=folder: a(f))  # type: ignore[misc]
    missing = [n for n in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    found["distribution"] = f"not set: {', '.join(missing)}" if missing else ""
    found["mpirun"] = "" if shutil.which("mpirun") else "it is not"
    return found


def second(store: Path) -> dict[str, str]:
    """Look at what the first attempt left."""
    return {"again": tried(lambda: _compare(store / KEPT, CONTENT + APPENDED))}


def main() -> None:
    """Be one attempt, as the job's command names it."""
    data, store, attempt = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    Path("outputs").mkdir(exist_ok=True)
    found = first(data, store) if attempt == "1" else second(store)
    print(json.dumps(found, indent=1), flush=True)
    (store / f"result-{attempt}.json").write_text(json.dumps(found))
    sys.exit(FAILS if attempt == "1" else 0)


if __name__ == "__main__":
    main()
