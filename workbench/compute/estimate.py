"""How long a job will take on a cluster, and what it will cost, before it is sent.

Prices: https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from workbench.compute.gpus import cards_of, machine_of
from workbench.compute.jobs import TrainingJob, run_folder
from workbench.compute.runs import SENT, Run, read_record

NODES = (1, 2, 4, 8)
VALIDATION = 1 / 3
"""Work of a validation slice over that of a training slice: the backward pass is left out."""

RETAIL_PRICES = "https://prices.azure.com/api/retail/prices"
_SECONDS_TO_WAIT = 10
_PACED_BY = ("model", "network", "config", "precision", "first_estimate", "crop_readout")

# The 2021 toolbox's table for brain_multicoil, nodes of 4 P40 cards: an epoch of training and
# validation took 255, 133, 66 and 34 minutes on 1, 2, 4 and 8 nodes.
_EPOCH_MINUTES = {1: 255, 2: 133, 4: 66, 8: 34}
_P40_SECONDS = 255 * 60 * 4 / (70748 + 21842 * VALIDATION)


class Pace(NamedTuple):
    """What a card does: seconds for a training slice, and where that is from."""

    seconds: float
    source: str


class Price(NamedTuple):
    """What a node costs: US dollars an hour, and where that is from."""

    dollars: float
    source: str


class Estimate(NamedTuple):
    """What a job takes on some number of nodes, at an assumed parallel efficiency.

    ``dollars`` is None where no price is known.
    """

    nodes: int
    hours: float
    efficiency: float
    dollars: float | None


P40_PACE = Pace(
    _P40_SECONDS,
    f"{_P40_SECONDS:.2f} s a slice on a P40 card, from the table of 2021 for the default network; "
    "newer cards are several times as fast",
)


def efficiency(nodes: int) -> float:
    """Return the parallel efficiency that the table of 2021 shows; between its rows the lower."""
    below = max(count for count in _EPOCH_MINUTES if count <= nodes)
    above = min((count for count in _EPOCH_MINUTES if count >= nodes), default=max(_EPOCH_MINUTES))
    return min(_EPOCH_MINUTES[1] / (count * _EPOCH_MINUTES[count]) for count in (below, above))


def estimates(
    pace: Pace,
    cards: int,
    *,
    slices: tuple[int, int] = (0, 0),
    epochs: int = 0,
    once: int = 0,
    nodes: Iterable[int] = NODES,
    price: Price | None = None,
) -> list[Estimate]:
    """Estimate time and cost of a job for several numbers of nodes.

    hours = (epochs x (training slices + validation slices / 3) + slices once / 3)
    x seconds a slice / (cards a node x nodes x efficiency)

    ``once`` counts slices that are reconstructed once, after a training or without one.
    """
    done = epochs * (slices[0] + slices[1] * VALIDATION) + once * VALIDATION
    found = []
    for count in nodes:
        share = efficiency(count)
        hours = done * pace.seconds / 3600 / (cards * count * share)
        cost = hours * count * price.dollars if price else None
        found.append(Estimate(count, hours, share, cost))
    return found


def pace_of(job: TrainingJob | None, vm_size: str) -> Pace | None:
    """Return what is known of a network's pace on machines of a size; None where nothing is."""
    measured = measured_pace(job, vm_size) if job else None
    return measured or (P40_PACE if machine_of(vm_size) else None)


def measured_pace(job: TrainingJob, vm_size: str) -> Pace | None:
    """Return what the latest run of the same network took on the same machines, if there is one."""
    records = run_folder("x").parent.rglob(SENT)
    for path in sorted(records, key=lambda path: -path.stat().st_mtime):
        with suppress(ValueError, KeyError, TypeError, OSError):  # a damaged run tells nothing
            record, run = read_record(path), Run(path.parent)
            own = slice(*record.get("epochs", (0, None)))  # others it has learned elsewhere
            (train, val), seconds = record["slices"], [row["seconds"] for row in run.metrics[own]]
            same = all(getattr(run.job, name) == getattr(job, name) for name in _PACED_BY)
            if record["vm_size"] == vm_size and same and seconds:
                ranks = record["nodes"] * cards_of(vm_size)
                alone = min(seconds) * ranks * efficiency(record["nodes"])
                pace = alone / (train + val * VALIDATION)
                source = f"{pace:.3f} s a slice, measured in {run.folder.name} on {vm_size}"
                return Pace(pace, source)
    return None


def retail_price(vm_size: str, region: str, *, low_priority: bool) -> Price | None:
    """Look a price up in Azure's public list; None where it has none, or cannot be reached."""
    import requests

    where = {
        "serviceName": "Virtual Machines",
        "priceType": "Consumption",
        "armSkuName": vm_size,
        "armRegionName": region,
    }
    asked = " and ".join(f"{name} eq '{value}'" for name, value in where.items())
    try:
        answer = requests.get(RETAIL_PRICES, params={"$filter": asked}, timeout=_SECONDS_TO_WAIT)
        answer.raise_for_status()
        prices = [
            float(item["retailPrice"])
            for item in answer.json()["Items"]
            if item["unitOfMeasure"] == "1 Hour"
            and "Windows" not in item["productName"]
            and "Spot" not in item["meterName"]
            and ("Low Priority" in item["meterName"]) == low_priority
        ]
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None
    if not prices:
        return None
    kind = "low priority" if low_priority else "dedicated"
    return Price(
        min(prices),
        f"{min(prices):g} US dollars an hour and node ({kind}, {region}), from Azure's public "
        "price list; give price_per_hour for your own",
    )
