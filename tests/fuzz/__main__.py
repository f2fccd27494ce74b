"""Fuzz each reader of foreign input for some minutes: `make fuzz MINUTES=10`, or one by name.

A target is a file `test_NAME.py` in this folder. It runs again and again, with a new seed each
time, until its minutes are over. The first failure ends the run and prints its input and seed.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> int:
    """Fuzz the targets one after another; 0 if no input broke a claim."""
    names = sorted(path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--minutes", type=float, default=10, help="for each target (10)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names):
        parser.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    for name in given.names or names:
        end = time.monotonic() + 60 * given.minutes
        rounds = 0
        while time.monotonic() < end:
            if status := _one_round(name, random.randrange(2**32)):
                return status
            rounds += 1
        print(f"{name}: {rounds} rounds, nothing broke", flush=True)
    return 0


def _one_round(name: str, seed: int) -> int:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", f"--hypothesis-seed={seed}"),
            str(FOLDER / f"test_{name}.py"),
        ],
        env=os.environ | {"FUZZ_PROFILE": "long"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(f"{name}, seed {seed}:\n{done.stdout}{done.stderr}", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
