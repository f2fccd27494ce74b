"""Stages that run at the same time: while one notebook starts, another one computes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event

from workbench.command.running import PageFailedError
from workbench_demo.stages import Stage


class StageFailedError(RuntimeError):
    """A stage's notebook failed; the message is its error."""

    def __init__(self, stage: Stage, said: str) -> None:
        super().__init__(said)
        self.stage = stage


def in_lanes(
    lanes: Sequence[Sequence[Stage]], at_once: int, do: Callable[[Stage, Event], None]
) -> None:
    """Do stages, those of a lane one after the other, and some lanes at once.

    Args:
        lanes: of stages, each in its order.
        at_once: how many lanes.
        do: does a stage; it ends early once the event is set.

    Raises:
        StageFailedError: a stage failed; the others are interrupted.
    """
    stop = Event()

    def run(lane: Sequence[Stage]) -> None:
        for stage in lane:
            if stop.is_set():
                return
            try:
                do(stage, stop)
            except PageFailedError as failure:
                raise StageFailedError(stage, str(failure)) from None

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(run, lane) for lane in lanes]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
