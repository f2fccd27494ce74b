"""The page of ``reconstruct.ipynb``: from a run's weights to reconstructed volumes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.catalog import SPLITS
from workbench.compute.runs import open_run
from workbench.dataset.sampling import MASKS, Sampling, numbers
from workbench.varnet.reconstruction_plan import (
    Reconstruction,
    ReconstructionPlan,
    plan_reconstruction,
    reconstruct,
    results,
)
from workbench.varnet.weights import RELEASED
from workbench.views.form_layout import datasets_here, runs_here
from workbench.views.pages import Look, OpenPage, Page, Values, open_page


@dataclass(frozen=True)
class Reconstructed:
    """What a reconstruction left.

    Attributes:
        plan: what was asked for, and where it is.
        found: a result for each volume.
        other: another run's results to compare with, or None.
        names: the names of that run and of this one.
    """

    plan: ReconstructionPlan
    found: list[Reconstruction]
    other: list[Reconstruction] | None
    names: tuple[str, str]


def reconstruct_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the reconstruction at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def check(values: Values) -> None:
    """Check what can be checked without a look at weights or volumes.

    Raises:
        ValueError: a parameter is outside what is allowed.
        FileNotFoundError: there is no such run.
    """
    if values["split"] not in SPLITS:
        raise ValueError(f"split={values['split']!r}: give one of {', '.join(SPLITS)}")
    for name in ("volumes", "nodes"):
        value = values[name]
        if value is not None and value < 1:
            raise ValueError(f"{name}={value!r}: give a whole number, 1 or more")
    run = values["run"]
    job = None
    if not values["weights"]:
        try:
            job = open_run(run or "brain").job
        except FileNotFoundError as error:
            raise FileNotFoundError(f"run={run!r}: {error}") from None
    rates = values["acceleration"], values["center_fraction"]
    if values["mask"] is rates[0] is rates[1] is None:
        return
    usual = job.sampling if job else Sampling()
    accelerations, fractions = (
        default if given is None else numbers(name, given)
        for name, given, default in (
            ("acceleration", rates[0], usual.accelerations),
            ("center_fraction", rates[1], usual.center_fractions),
        )
    )
    Sampling(values["mask"] or usual.mask, accelerations, fractions)


def plan(*, compare: str | None, **values: Any) -> tuple[ReconstructionPlan, Any, tuple[str, str]]:
    """Check everything, see what is there already, and show it."""
    found = plan_reconstruction(**values)
    other = found.compared_with(compare) if compare else None
    print(found, flush=True)
    return found, other, (compare or "", values["run"] or "brain")


def work(asked: tuple[ReconstructionPlan, Any, tuple[str, str]]) -> Reconstructed:
    """Reconstruct what is missing, and read the results."""
    planned, other, names = asked
    for line in reconstruct(planned):
        print(line, flush=True)
    return Reconstructed(planned, results(planned), other, names)


# ---- what the cells below show ------------------------------------------------------------


def show_scores(done: Reconstructed) -> Any:
    """Show each volume's figures, and their means."""
    from workbench.views import reconstruct as views

    if not views.scored(done.found):
        print("no volume here has a target")
        return None
    return views.score_table(done.found)


def show_acquisitions(done: Reconstructed) -> Any:
    """Show the figures by acquisition, and how they are spread."""
    from IPython.display import display

    from workbench.views import reconstruct as views

    if views.scored(done.found):
        display(views.score_table(done.found, by="acquisition"))
        display(views.spread_figure(done.plan, done.found))


def show_against(done: Reconstructed) -> Any:
    """Show this run beside the one that it is compared with."""
    from workbench.views import reconstruct as views

    if done.other is None or not views.scored(done.found):
        return None
    return views.against_figure(done.plan, done.found, done.other, done.names)


def show_extremes(done: Reconstructed) -> None:
    """Show the best, the median and the worst slice."""
    from IPython.display import display

    from workbench.views import reconstruct as views

    if views.scored(done.found):
        for kind, result, number in views.extreme_slices(done.found):
            for figure in views.slice_views(done.plan, result, number, kind):
                display(figure)


def show_volumes(done: Reconstructed) -> Any:
    """Show every slice: of all volumes in a viewer, the worst first; elsewhere of the first one."""
    from workbench.progress import interactive
    from workbench.views import reconstruct as views
    from workbench.views.ranking import rank_volumes
    from workbench.views.volume_viewers import browse_volumes

    if interactive():
        return browse_volumes(done.plan, rank_volumes(done.found))
    return views.sheet_figure(done.plan, done.found[0])


PAGE = Page(
    notebook="reconstruct",
    address="workbench.views.page_reconstruct:PAGE",
    start="Reconstruct",
    check=check,
    plan=plan,
    work=work,
    report=lambda done: f": {len(done.found)} volumes",
    common=("run", "split", "volumes", "compare"),
    groups={
        "Undersampling": ("mask", "acceleration", "center_fraction"),
        "More": ("weights", "local_dataset", "nodes"),
    },
    looks={
        "run": Look(choices=runs_here),
        "weights": Look(choices=lambda: tuple(RELEASED)),
        "split": Look(choices=lambda: SPLITS, only_these=True),
        "local_dataset": Look("dataset", choices=datasets_here),
        "mask": Look(choices=lambda: MASKS, only_these=True),
        "center_fraction": Look("centre fraction"),
        "compare": Look("compare with run", choices=runs_here),
        "nodes": Look(unit="processes"),
    },
)
