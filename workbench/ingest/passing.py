"""What passes through this machine where it, and no cluster, unpacks what a Data Factory landed.

The factory cannot unpack xz, nor check a hash: whoever does reads every archive from storage.
"""

import os
import time

from workbench.ingest.factory_documents import unpacked_by_factory
from workbench.ingest.plan import Action, IngestPlan
from workbench.progress import amount, duration
from workbench.settings import cores
from workbench.stores import Store

XZ_SPEED = 14e6
"""Bytes of .tar.xz that a core decodes a second: measured on fastMRI's kind of data."""
EGRESS_PRICE, EGRESS_FREE = 0.087, 100e9
"""US dollars a GB that leaves Azure for the internet, and the bytes a month that are free.

Microsoft's list of bandwidth prices for Europe and North America, the first 10 TB of a month.
"""
_PROBE, _PROBE_SIZE = ".speed-probe", 8 << 20


def measured_speeds(store: Store) -> tuple[float, float]:
    """Measure this machine's line to a store, in bytes a second from there and to there.

    OSError: the store refuses or cannot be reached.
    """
    content = os.urandom(_PROBE_SIZE)
    began = time.perf_counter()
    store.write(_PROBE, content)
    written = time.perf_counter()
    try:
        store.read(_PROBE)
        read = time.perf_counter()
    finally:
        store.delete(_PROBE)
    return _PROBE_SIZE / (read - written), _PROBE_SIZE / (written - began)


def passing_note(plan: IngestPlan, why: str) -> str:
    """Say what passes through this machine, how long that takes, and what Azure bills for it.

    What the factory unpacks is read twice, packed and unpacked, to be compared.

    Args:
        plan: an ingest by a Data Factory.
        why: this machine, and no cluster, unpacks.
    """
    assert plan.factory is not None
    down = up = xz = 0  # bytes that come here, that go back, and of xz that are decoded
    for archive in plan.to_unpack:
        down += archive.size
        if archive.kind == ".tar.xz":
            xz += archive.size
        if archive.action is Action.FETCH and unpacked_by_factory(archive.kind, archive.link.name):
            down += archive.unpacked
        else:
            up += archive.unpacked
    from_there, to_there = measured_speeds(plan.store)
    # All three go on side by side.
    seconds = max(down / from_there, up / to_there, xz / (XZ_SPEED * cores()))
    dollars = max(down - EGRESS_FREE, 0) / 1e9 * EGRESS_PRICE
    bill = f"about {dollars:,.0f} US dollars by its list" if dollars >= 1 else "less than a dollar"
    back = f" and {amount(up, 'B')} go back" if up else ""
    decoding = f", {XZ_SPEED / 1e6:.0f} MB/s of xz on each of {cores()} cores" if xz else ""
    return (
        f"this machine verifies and unpacks ({why}): {amount(down, 'B')} come here from "
        f"storage{back}, some {duration(seconds)} at what was measured "
        f"({amount(from_there, 'B')}/s from storage, {amount(to_there, 'B')}/s to it{decoding}). "
        f"Azure bills the {amount(down, 'B')} as egress, {bill} (the first 100 GB of a month are "
        f"free), unless this machine is in its region {plan.factory.location}"
    )
