"""The network in every way that it can be computed: ``--gpu`` on an NVIDIA card, or ``--cpu``.

A reconstruction and a training step, fastMRI's and ours: in float32, TF32, bfloat16 and float16;
compiled by inductor or not; as a CUDA graph or not; with low memory or not. What a way cannot do,
or a card has no memory for, is said in its row. Then the way of a slice to the card. The table goes
to ``gpu.md`` and ``gpu.json``, or ``cpu.md`` and ``cpu.json``.

It needs torch, NumPy, and a few packages beside them, no installed workbench: docs/speed.md.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from fastmri.models.unet import Unet
from torch import Tensor, nn

from benchmarks.networks import (
    TrainingStep,
    device,
    device_milliseconds,
    distance,
    infer,
    measurement,
    networks,
    shown,
)
from benchmarks.pairs import Work, milliseconds, operations, peak_rate, require
from benchmarks.report import machine, write_document
from benchmarks.sizes import Shape, Size
from workbench.models import VarNet
from workbench.models.unet import UNetBase
from workbench.recon.speed import compile_unets, use_tf32

_WARM = 3  # calls before one counts
_REPEATS = {"cuda": 10, "cpu": 3}  # on a processor a call takes seconds
_MB = 1e6


class CannotError(Exception):
    """A way that does not work here; the message says why."""


@dataclass(frozen=True)
class Way:
    """How a network is computed.

    Attributes:
        label: what it is called.
        ours: whether the workbench's network is computed, else fastMRI's.
        tf32: whether float32 factors are rounded to TF32 (torch's default for convolutions).
        half: type of the U-Nets' convolutions; None for float32.
        compiled: whether inductor compiles the U-Nets.
        graphed: whether the whole is recorded once as a CUDA graph, and played from then on.
        low_memory: whether a training step computes its activations twice.
        trains: whether a step is measured; float16's gradients would need scaling.
    """

    label: str
    ours: bool = True
    tf32: bool = False
    half: torch.dtype | None = None
    compiled: bool = False
    graphed: bool = False
    low_memory: bool = False
    trains: bool = True


_BF16, _FP16 = torch.bfloat16, torch.float16
WAYS = (
    Way("fastMRI, float32", ours=False),
    Way("fastMRI, TF32 (as torch comes)", ours=False, tf32=True),
    Way("fastMRI, bf16 autocast", ours=False, tf32=True, half=_BF16),
    Way("float32"),
    Way("float32, low memory", low_memory=True),
    Way("float32, graph", graphed=True),
    Way("float32, compiled", compiled=True),
    Way("TF32", tf32=True),
    Way("TF32, graph", tf32=True, graphed=True),
    Way("TF32, compiled", tf32=True, compiled=True),
    Way("TF32, compiled, graph", tf32=True, compiled=True, graphed=True),
    Way("bf16", tf32=True, half=_BF16),
    Way("bf16, compiled", tf32=True, half=_BF16, compiled=True),
    Way("bf16, compiled, graph", tf32=True, half=_BF16, compiled=True, graphed=True),
    Way("bf16, compiled, low memory", tf32=True, half=_BF16, compiled=True, low_memory=True),
    Way("fp16", tf32=True, half=_FP16, trains=False),
    Way("fp16, compiled, graph", tf32=True, half=_FP16, compiled=True, graphed=True, trains=False),
)


@dataclass(frozen=True)
class Cost:
    """What one way costs; of what does not work here the reason alone is given.

    Attributes:
        work: what is computed.
        way: label of the way.
        ms: median of a call.
        first_s: the first call, compiling and recording included, seconds.
        mb: what a call takes of the card's memory at its peak, besides weights and input.
        share: of the rate at which the device multiplies large matrices of that precision.
        off: distance of the image from fastMRI's in float32 (L2, relative).
        why_not: why there are no numbers.
    """

    work: str
    way: str
    ms: float | None = None
    first_s: float | None = None
    mb: float | None = None
    share: float | None = None
    off: float | None = None
    why_not: str = ""


def ways_here() -> tuple[Way, ...]:
    """Return the ways that differ, and are of use, on the device at hand."""
    if device().type == "cuda":
        return WAYS
    alike = [way for way in WAYS if way.tf32 and way.half is not _BF16]
    return tuple(way for way in WAYS if not (way.compiled or way.graphed or way in alike))


def costs(size: Size, ways: Sequence[Way] = WAYS) -> Iterator[Cost]:
    """Yield what each way costs: slices of each kind, then a training step."""
    for place, shape in size.inference.items():
        work = f"reconstruct a {place} slice {shown(shape)}"
        yield from _costs(work, [way for way in ways if not way.low_memory], size, shape)
    work = f"a training step, {shown(size.training)}"
    yield from _costs(work, [way for way in ways if way.trains], size, size.training, trains=True)


def _costs(
    work: str, ways: Sequence[Way], size: Size, shape: Shape, *, trains: bool = False
) -> Iterator[Cost]:
    """Measure one work in several ways; the first one's image is what others are held against."""
    exact: Tensor | None = None
    count = 0
    for way in ways:
        try:
            call = _call(way, size, shape, trains)
            if not count:
                count = operations(call)
            found, cost = _measured(work, way, call, count)
        except CannotError as error:
            yield Cost(work, way.label, why_not=str(error))
        except RuntimeError as error:
            yield Cost(work, way.label, why_not=_reason(error))
        else:
            if isinstance(found, Tensor):
                exact = found.clone() if exact is None else exact
                cost = Cost(**asdict(cost) | {"off": distance(found.float(), exact)})
            yield cost
        call = found = None  # type: ignore[assignment]
        _forget()


def _call(way: Way, size: Size, shape: Shape, trains: bool) -> Work:
    """Return what computes the work once in a way.

    Raises:
        CannotError: this machine cannot.
    """
    if device().type == "cpu" and (way.compiled or way.graphed):
        raise CannotError("needs an NVIDIA GPU")
    network = _network(way, size)
    call: Work = (
        TrainingStep(network, shape, size.crop)
        if trains
        else partial(infer, network, measurement(shape))
    )
    return _recorded(call) if way.graphed else call


def _network(way: Way, size: Size) -> nn.Module:
    """Return a network that is computed in a way; its weights are those of all others."""
    reference, ours = networks(size)
    use_tf32(way.tf32)
    network = ours if way.ours else reference
    if isinstance(network, VarNet):
        network.low_memory, network.bf16 = way.low_memory, way.half is _BF16
    if way.half is not None and not getattr(network, "bf16", False):
        # As the workbench does with bf16: the U-Nets alone, no transform.
        for unet in network.modules():
            if isinstance(unet, UNetBase | Unet):
                halved = torch.autocast(device().type, way.half, cache_enabled=False)
                unet.forward = halved(unet.forward)
    if way.compiled:
        torch.compiler.reset()
        compile_unets(cast(VarNet, network))
    return network


def _recorded(call: Work) -> Work:
    """Record a call as a CUDA graph; return what plays it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()

    def play() -> Any:
        graph.replay()
        return found

    return play


def _measured(work: str, way: Way, call: Work, count: int) -> tuple[Any, Cost]:
    """Return what the last call found, and what a call costs."""
    began = time.perf_counter()
    found = call()
    _wait()
    first = time.perf_counter() - began
    on_card = device().type == "cuda"
    for _ in range(_WARM if on_card else 0):
        call()
    peak = _peak(call) if on_card else None
    ms = statistics.median(device_milliseconds(call) for _ in range(_repeats()))
    share = None
    if on_card or way.half is None:  # of which processors have none worth a share
        share = count / (ms / 1000) / peak_rate(way.half, way.tf32)
    return found, Cost(work, way.label, ms=ms, first_s=first, mb=peak, share=share)


def _repeats() -> int:
    return _REPEATS[device().type]


def _peak(call: Work) -> float:
    _wait()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    _wait()
    return (torch.cuda.max_memory_allocated() - before) / _MB


def _wait() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def _forget() -> None:
    gc.collect()
    if device().type == "cuda":
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines[0] else type(error).__name__


@dataclass(frozen=True)
class Trip:
    """One way of a slice's k-space to the card: milliseconds, and the megabytes that travel."""

    label: str
    ms: float
    mb: float


def trips(shape: Shape) -> list[Trip]:
    """Measure how a slice comes to the card: whole or its sampled columns, pinned or not."""
    kspace, mask, _ = measurement(shape)
    kspace, columns = kspace.cpu(), mask.cpu().flatten().nonzero()[:, 0]
    sampled = kspace[..., columns, :].contiguous()
    pin: Callable[[Tensor], Tensor] = (
        Tensor.pin_memory if device().type == "cuda" else Tensor.contiguous
    )
    there = columns.to(device())

    def whole(source: Tensor) -> Tensor:
        return source.to(device(), non_blocking=True)

    def spread(source: Tensor) -> Tensor:
        empty = torch.zeros(kspace.shape, device=device())
        return empty.index_copy_(3, there, source.to(device(), non_blocking=True))

    found = []
    for label, move, source in (
        ("the whole slice", whole, kspace),
        ("the whole slice, pinned", whole, pin(kspace)),
        ("its sampled columns, pinned, spread on the card", spread, pin(sampled)),
    ):
        require(label, float((move(source).cpu() - kspace).abs().max()), 0.0)
        ms = statistics.median(_arrival(partial(move, source)) for _ in range(_repeats()))
        found.append(Trip(label, ms, source.nbytes / _MB))
    return found


def _arrival(move: Work) -> float:
    def arrive() -> None:
        move()
        _wait()

    _wait()
    return milliseconds(arrive)


def markdown(found: Sequence[Cost], moved: Sequence[Trip], where: dict[str, Any]) -> str:
    """Return the tables: one for each work, then that of the slice's way to the card."""
    labels = dict.fromkeys(cost.way for cost in found)
    usual = next((label for label in labels if "as torch comes" in label), "fastMRI, float32")
    lines = [
        f"{where.get('gpu', where['processor'])}; torch {where['versions']['torch']}. Medians of "
        f"{_repeats()} calls; against fastMRI: its row {usual!r}. Off: distance from fastMRI's "
        "image in float32 (L2, relative). Share: of the rate of a product of large matrices of "
        "that precision, convolutions counted."
    ]
    for work in dict.fromkeys(cost.work for cost in found):
        lines += [
            "",
            f"| {work} | a call | against fastMRI | first call | memory | off | share |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        rows = [cost for cost in found if cost.work == work]
        base = next((row.ms for row in rows if row.way == usual), None)
        lines += [_line(row, base) for row in rows]
    if moved:
        lines += ["", "| a slice to the card | time | MB |", "| --- | ---: | ---: |"]
    lines += [f"| {trip.label} | {trip.ms:.2f} ms | {trip.mb:.1f} |" for trip in moved]
    return "\n".join(lines)


def _line(row: Cost, usual: float | None) -> str:
    if row.ms is None:
        return f"| {row.way} | {row.why_not} | | | | | |"
    cells = (
        f"{row.ms:.3g} ms",
        f"{usual / row.ms:.2f}" if usual else "",
        f"{row.first_s:.1f} s",
        "" if row.mb is None else f"{row.mb:,.0f} MB",
        "" if row.off is None else f"{row.off:.1e}",
        "" if row.share is None else f"{row.share:.0%}",
    )
    return f"| {row.way} | {' | '.join(cells)} |"


def measure(size: Size, folder: Path) -> str:
    """Measure all, write it into a folder, named after the device; return the table."""
    where, found = machine(), list[Cost]()
    for cost in costs(size, ways_here()):
        found.append(cost)
        print(f"{cost.work}, {cost.way}: {_said(cost)}", flush=True)
    on_card = device().type == "cuda"
    moved = trips(size.training) if on_card else []
    table = markdown(found, moved, where)
    document = {
        "size": size.name,
        "machine": where,
        "costs": [asdict(cost) for cost in found],
        "trips": [asdict(trip) for trip in moved],
    }
    write_document(folder, "gpu" if on_card else "cpu", document, table)
    return table


def _said(cost: Cost) -> str:
    return cost.why_not if cost.ms is None else f"{cost.ms:.3g} ms"
