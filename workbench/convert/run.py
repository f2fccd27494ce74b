"""Convert what a plan lists; a killed conversion goes on where it stopped."""

from collections.abc import Iterator

from workbench.convert.plan import (
    Plan,
    check_current,
    check_unchanged,
    remember,
    said_of_what_stays,
    write_names,
)
from workbench.convert.scan import RefusedError
from workbench.convert.write import write_scan
from workbench.data.volume import Problem
from workbench.progress import Progress, amount
from workbench.settings import shown
from workbench.stores.disk import CannotWriteError, DiskStore, only_one

LOCK = ".conversion.lock"


def convert(plan: Plan) -> Iterator[Problem]:
    """Write every volume that is not there yet; yield those that could not be, with the reason.

    Raises:
        CannotWriteError: there is no room for all of it, or the folder refuses.
        RuntimeError: another conversion writes into the same folder, or did since the plan.
    """
    ask = plan.ask
    free = DiskStore(ask.dataset).free()
    if plan.size > free:
        raise CannotWriteError(
            0,
            f"{shown(ask.dataset)} has {amount(free, 'B')} of room, and the volumes take "
            f"{amount(plan.size, 'B')}: free some, or give another dataset",
        )
    busy = f"another conversion writes into {shown(ask.dataset)}: wait for it to end"
    with only_one(ask.dataset / LOCK, busy):
        check_current(plan)
        DiskStore(ask.dataset).sweep()
        write_names(plan)
        progress = Progress("converting", sum(item.scan.shape[0] for item in plan.to_do), "slices")
        for item in plan.to_do:
            remember(plan, item, whole=False)
            try:
                for _ in write_scan(
                    item.scan,
                    ask.dataset / item.path,
                    scale=plan.scale,
                    flip=ask.flip,
                    attributes={"patient_id": item.person},
                ):
                    check_unchanged(ask, item)
                    progress.advance(1)
            except RefusedError as error:
                yield Problem(item.source, f"{error}{said_of_what_stays(ask, (item.path,))}")
                continue
            remember(plan, item, whole=True)
