"""Whose scan it is, without a name: keyed hashes, and splits that keep people whole."""

import hashlib
import hmac
import math
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from workbench.stores.disk import naming, replacing

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
_KEY_BYTES = 32


def read_key(file: Path) -> bytes:
    """Read the key of the hashes; a new one is made where there is none, for its owner alone.

    Raises:
        ValueError: the file is no such key.
    """
    with naming(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with replacing(file) as new:
                Path(new.name).chmod(0o600)
                new.write(secrets.token_hex(_KEY_BYTES).encode() + b"\n")
    text = file.read_text().strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError(
            f"key={str(file)!r} is no key of this converter ({2 * _KEY_BYTES} hexadecimal digits): "
            "give the file that it made, or a name that is free"
        )
    return key


def pseudonym(key: bytes, kind: str, name: str) -> str:
    """Return what stands for a name: the same for the same key, kind and name (HMAC-SHA256)."""
    return hmac.new(key, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()[:32]


def named(patient: str) -> str:
    """Return a patient's number; "" after a scanner's anonymisation, a row of x for anybody."""
    return "" if set(patient.lower()) <= {"x", " "} else patient


def read_shares(text: str) -> dict[str, float]:
    """Read shares such as "0.8, 0.1, 0.1" or "train=1": of people, by split.

    Raises:
        ValueError: they are no shares that add up to 1.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    pairs = named if len(named) == len(parts) else dict(zip(SHARES, parts, strict=False))
    try:
        shares = {name.strip(): float(value) for name, value in pairs.items()}
    except ValueError:
        shares = {}
    right = len(pairs) == len(parts) and shares.keys() <= SHARES.keys()
    if (
        not right
        or min(shares.values(), default=-1) < 0
        or not math.isclose(sum(shares.values()), 1)
    ):
        raise ValueError(
            f"shares={text!r}: give those of train, val and test, which add up to 1, such as "
            "0.8, 0.1, 0.1"
        )
    return shares


def split_people(
    people: Iterable[str], shares: Mapping[str, float], seed: int, known: Mapping[str, str]
) -> dict[str, str]:
    """Give each person a split.

    Args:
        people: their pseudonyms.
        shares: of people, by split.
        seed: of the order in which they are taken.
        known: those whose split was decided before; they keep it, and count where they are not
            among the people of now: files may come one by one.

    Returns:
        person -> split. Each split with a share gets somebody where there are enough people.
    """

    def order(person: str) -> str:
        return hashlib.sha256(f"{seed}\0{person}".encode()).hexdigest()

    everyone, found = {*people, *known}, dict(known)
    wanted = {split: share * len(everyone) for split, share in shares.items() if share > 0}
    held = {split: list(found.values()).count(split) for split in wanted}
    for person in sorted(everyone - found.keys(), key=order):
        # Each split gets one before another gets a second; then the one that lacks most.
        split = max(wanted, key=lambda name: (held[name] == 0, wanted[name] - held[name]))
        found[person] = split
        held[split] += 1
    return found
