"""Sets of results to compare: which there are, what they have in common, what tells them apart."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas

from workbench.compute.evaluation import FOLDER, ORDER, results_folder
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run
from workbench.models import NETWORKS, label_of, trains
from workbench.progress import count_of
from workbench.recon.asked import Order, are_own_weights, is_current, read_order
from workbench.recon.results import Result, Results


def made_table(sets: Sequence[Results]) -> pandas.DataFrame:
    """Return how each set was made, as text; weights only where the run does not tell them.

    It does not where its sets have several, or where a trained run's are not its own: by its name
    alone, people would take what other weights reached for what the run has learned.

    "method" is the network of those that have no weights, with options that are not the usual ones.
    """
    rows = []
    for each in sets:
        sampling, known = each.order.sampling, ("own masks", "", "")
        if sampling:
            rates = ", ".join(f"{rate:g}x" for rate in sampling.accelerations)
            centres = "centre " + ", ".join(f"{share:g}" for share in sampling.center_fractions)
            known = (sampling.mask, rates, centres)
        method = "" if each.order.weights else each.labels["reconstruction"] or _planned(each.order)
        sha256 = each.order.weights_sha256 or None
        trained = (each.folder.parent.parent / "job.json").exists()
        other = trained and not are_own_weights(each.folder, each.order)
        rows.append((each.run, method, each.order.split, *known, each.weights, sha256, other))
    names = ["run", "method", "split", "mask", "rates", "centres", "weights", "sha256", "other"]
    made = pandas.DataFrame(rows, columns=names)
    told = (made.groupby("run")["sha256"].transform("nunique") > 1) | made["other"].astype(bool)
    return made.assign(weights=made["weights"].where(told, "")).drop(columns=["sha256", "other"])


def _planned(order: Order) -> str:
    """Return a label for results that are not there yet, with all options."""
    return label_of(order.network or "", order.network_options or "")


def labels_of(sets: Sequence[Results]) -> list[str]:
    """Return a label for each set: its run, and what else tells it from the others.

    The rest is whichever differs of split, mask, acceleration and centre fraction, and the weights
    where the run does not tell them.

    Raises:
        ValueError: two sets cannot be told apart.
    """
    made = made_table(sets)
    said = made.assign(weights=made["weights"].map(lambda name: name and f"weights {name}"))
    differ = [name for name in made if name in ("run", "weights") or made[name].nunique() > 1]
    labels = [", ".join(filter(None, row)) for row in said[differ].itertuples(index=False)]
    if len(set(labels)) == len(labels):
        return labels
    pairs = zip((each.name for each in sets), made["weights"], strict=True)
    labels = [", ".join(filter(None, pair)) for pair in pairs]
    if again := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"{again[0]} is there twice: compare results of different folders")
    return labels


def results_of_run(run: str) -> list[Path]:
    """Return the folders of a run's results, sorted by name.

    One where a reconstruction was broken off before its first volume holds an order, and no result.
    """
    found = (run_folder(run, "compare") / FOLDER).glob(f"*/{ORDER}")
    return sorted(path.parent for path in found if any(path.parent.rglob("*.h5")))


def find_compared(compare: str | None, folder: Path, order: Order) -> list[Results]:
    """Read the parameter ``compare``: results to set beside those that an order made in a folder.

    Each part, with commas between them, is a run's name, ``RUN``, for its results of the same split
    and mask; or ``RUN@WHAT``, where WHAT picks others by what their folder's name holds:
    ``knee@8x``, ``knee@random``, ``knee@random-8x``. All that fit are taken. A network that learns
    nothing, such as ``wavelet`` or ``wavelet@8x``, stands for its results beside those of the run,
    with its usual options; ``wavelet@regularisation=0.01`` for those with another.

    Raises:
        ValueError: it names nothing, or nothing but the results themselves.
        FileNotFoundError: there is nothing that fits; the message says what there is.
    """
    if compare is None:
        return []
    if not parts_of(compare):
        raise ValueError(f"compare={compare!r}: give runs, such as other_run or knee@8x")
    chosen: dict[Path, None] = {}
    split = folder.name.split("-")[0]
    for part in parts_of(compare):
        found = results_that_fit(part, folder, order)
        if not found:
            run = part.partition("@")[0]
            names = ", ".join(f"{run}@{each.name}" for each in results_of_run(run))
            advice = f"it has {names}" if names else f"{run} has no results"
            if _folders_that_fit(part, folder, order):
                advice += ", made with weights that their file holds no more"
            raise FileNotFoundError(
                f"compare={part!r}: nothing of split {split} fits; {advice}. "
                "make_missing=True reconstructs what is missing"
            )
        chosen |= dict.fromkeys(found)
    chosen.pop(folder, None)
    if not chosen:
        raise ValueError(
            f"compare={compare!r}: these are the results themselves; give another run, or others "
            "of its results, such as knee@8x"
        )
    return [Results(each) for each in chosen]


def parts_of(text: str | None) -> list[str]:
    """Return the parts of a parameter, with commas between them."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def words_of(name: str) -> list[str]:
    """Split the name of a folder of results, or a part of one, such as "random-8x"."""
    return [word for word in re.split(r"(?<!\de)-|@", name) if word]  # not in 1e-05


def results_that_fit(part: str, folder: Path, order: Order) -> list[Path]:
    """Return the folders of results that one part of ``compare`` names, beside an order's.

    A run that has trained on since has none until it is reconstructed again.
    """
    found = _folders_that_fit(part, folder, order)
    return [each for each in found if is_current(each, read_order(each))]


def _folders_that_fit(part: str, folder: Path, order: Order) -> list[Path]:
    run, _, what = part.partition("@")
    own = Run(folder.parent.parent)
    same = results_folder(own, order.split, order.sampling).name
    wanted = {order.split, *words_of(what)}
    if trains(run):
        same = folder.name if order.weights else same
    elif order.weights or own.name != order.network:  # beside the run's
        same, wanted, run = f"{same}-{run}", wanted | {run}, own.name
    methods = {name for name in NETWORKS if not trains(name)}

    def fits(name: str) -> bool:
        words = set(words_of(name))
        telling = {word for word in words if word in methods or "=" in word}
        return name == (what or same) or bool(what and telling <= wanted <= words)

    return [each for each in results_of_run(run) if fits(each.name)]


def shared_volumes(sets: Sequence[Results]) -> set[str]:
    """Return the paths of the volumes that all sets have scored: of one k-space and one target.

    Datasets of several sites, or one that was converted anew, have other volumes of the same path.
    """
    known = [{each.volume.path: each for each in results.scored} for results in sets]
    common = set.intersection(*map(set, known)) if known else set()
    return {path for path in common if _are_of_one([results[path] for results in known])}


def _are_of_one(results: Sequence[Result]) -> bool:
    """Say whether results of one path are of one volume; earlier ones do not name their k-space."""
    volumes = [each.volume for each in results]
    targets = {
        repr((v.target and v.target.shape, v.largest, v.attributes.get("norm"))) for v in volumes
    }
    return len(targets) == 1 and len({each.fingerprint for each in results} - {""}) <= 1


def common_volumes(sets: Sequence[Results]) -> list[Results]:
    """Cut sets down to the volumes that all of them have scored; a ValueError if there is none."""
    common = shared_volumes(sets)
    if not common:
        raise ValueError(
            f"the results have no volume with a target in common: {', '.join(labels_of(sets))}"
        )
    return [each.only(common) for each in sets]


def left_out_of_comparison(sets: Sequence[Results]) -> str:
    """Say which sets have scored more volumes than those that all have; "" where none has."""
    count = len(common_volumes(sets)[0])
    more = [
        f"{label} has {len(each.scored)}"
        for label, each in zip(labels_of(sets), sets, strict=True)
        if len(each.scored) > count
    ]
    return f"Compared on the {count_of(count)} that all have scored: {', '.join(more)}." * bool(
        more
    )
