"""What was asked for of a reconstruction: it decides what the results in a folder look like."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.compute.evaluation import ORDER, sha256_of
from workbench.compute.runs import Run
from workbench.data.sampling import Sampling
from workbench.data.volume import Volume
from workbench.settings import shown
from workbench.stores.disk import write_text


@dataclass(frozen=True)
class Order:
    """What was asked for: all that decides what a reconstruction looks like."""

    weights: str  # the file; empty for a network that learns nothing
    weights_sha256: str
    dataset: str  # its folder, or its address in blob storage
    split: str
    sampling: Sampling | None  # None takes each file's own mask
    volumes: tuple[str, ...] = ()  # paths in the dataset of those that were still to be made
    network: str | None = None  # whose weights they are, where the file does not say it
    network_options: str | None = None  # arguments of that network; all, where it learns nothing
    code: str = ""  # digest of the network's code where that is somebody's own, which may change

    def __str__(self) -> str:
        """Say how k-space was undersampled."""
        return str(self.sampling) if self.sampling else "each file's own mask"

    def digest(self, volume: Volume) -> str:
        """What tells one result from another: weights, own code, sampling, the volume as it is now.

        A volume's copy on another machine is the same volume, whatever its time of change.
        """
        return self._digest(volume, int)

    def made(self, digest: Any, volume: Volume) -> bool:
        """Say whether a result's digest is of this order; earlier ones had 4.0 for 4 at times."""
        return digest in (self._digest(volume, int), self._digest(volume, float))

    def _digest(self, volume: Volume, whole: type[int] | type[float]) -> str:
        known = asdict(volume) | {"mtime_ns": 0}
        sampling = asdict(self.sampling) if self.sampling else None
        if sampling:
            rates = sampling["accelerations"]
            sampling["accelerations"] = [
                whole(each) if each == int(each) else each for each in rates
            ]
        decides: list[Any] = [self.weights_sha256, sampling, known]
        if self.network or self.network_options:
            decides += [self.network, self.network_options]
        if self.code:
            decides.append(self.code)
        text = json.dumps(decides, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def method(self) -> dict[str, str]:
        """What made a result, as its file says it: weights, options and own code, where any are."""
        found = {
            "weights_sha256": self.weights_sha256,
            "network_options": self.network_options,
            "code": self.code,
        }
        return {name: value for name, value in found.items() if value}

    def write(self, folder: Path) -> None:
        """Leave the order in a folder of results."""
        write_text(folder / ORDER, json.dumps(asdict(self), indent=2))


def read_order(folder: Path) -> Order:
    """Read what was asked for in a folder of results; ValueError where the file is damaged."""
    try:
        values = json.loads((folder / ORDER).read_text())
        for name in ("weights", "weights_sha256", "dataset", "split"):
            if not isinstance(values[name], str):
                raise ValueError(f"{name} is no text")
        if sampling := values["sampling"]:
            rates, centres = (tuple(sampling[n]) for n in ("accelerations", "center_fractions"))
            values["sampling"] = Sampling(sampling["mask"], rates, centres)
        return Order(**values | {"volumes": tuple(values["volumes"])})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shown(folder / ORDER)} is damaged: {error}") from None


def are_own_weights(folder: Path, order: Order) -> bool:
    """Say whether an order's weights are the best checkpoint of the run that a folder lies in.

    That is known by its place in the run: made on a node of a cluster, or before the project was
    moved, results name a file of another machine or folder.
    """
    file, own = Path(order.weights), Run(folder.parent.parent).best
    return file == own or (file.parts[-3:] == own.parts[-3:] and not file.exists())


def is_current(folder: Path, order: Order) -> bool:
    """Say whether the weights' file holds what an order names; also where it is not here."""
    own = are_own_weights(folder, order)
    file = Run(folder.parent.parent).best if own else Path(order.weights)
    try:
        return not order.weights or sha256_of(file) == order.weights_sha256
    except OSError:
        return True
