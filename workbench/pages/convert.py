"""The page of ``convert.ipynb``: raw data of any scanner into a dataset in fastMRI's form."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from workbench.convert.people import read_shares
from workbench.convert.plan import PEOPLE, Ask, Plan, plan_conversion
from workbench.convert.readers import READERS
from workbench.convert.scan import AXES, Choices
from workbench.convert.telling import lines_of
from workbench.data.cache import DatasetCache, open_cache
from workbench.data.volume import Problem
from workbench.forms.page import Page
from workbench.forms.parameters import Field, WrongValueError, concerning
from workbench.settings import resolve, shown

_SHOWN = 4  # volumes whose middle slice is drawn
_MATRIX = re.compile(r"(\d+)\s*[x*,]\s*(\d+)")


@dataclass(frozen=True)
class Converted:
    """A dataset that was made.

    Attributes:
        cache: its cache.
        refused: the source's files that became nothing, with the reason.
    """

    cache: DatasetCache
    refused: tuple[Problem, ...]


class ConvertPage(Page):
    """Convert raw data, and index what comes out."""

    notebook, start = "convert", "Convert"
    imports = ("workbench.views.explore",)

    source: str = "raw"
    """a file of raw data, or a folder of them"""
    dataset: str = "own"
    """name of the dataset under datasets/ to make, or the path of a folder"""

    form: str | None = Field(None, section="What it is", choices=tuple(READERS))
    """form of the files; None: what each file's content says"""
    acquisition: str | None = None
    """sequence, such as AXT2, of all of it; None: as the files say"""
    whiten: bool = Field(False, label="whiten coils")
    """decorrelate the coils by the noise lines; files without any are refused"""
    flip: bool = Field(False, label="turn images over")
    """turn images over, top to bottom, such as for released weights"""
    scale: float | None = Field(None, gt=0)
    """factor of k-space; None: one that brings images to fastMRI's scale"""

    person: str = Field("auto", section="People", label="told apart by", choices=PEOPLE)
    """header, folder (one a person), file; auto: the header where it says"""
    shares: str = "0.8, 0.1, 0.1"
    """of people, for train, val and test"""
    seed: int = Field(42, ge=0)
    """of the order in which people are given to the splits"""
    private: str = Field("", label="private folder")
    """of the key and the table of names; empty: outputs/convert/NAME"""

    axes: str | None = Field(None, section="Arrays (.npy, .mat, .cfl)")
    """such as "slice, coil, readout, phase"; None: found by their lengths"""
    variable: str | None = None
    """name of k-space in the file; None: the only complex array"""
    matrix: str | None = Field(None, label="encoded matrix")
    """readout x phase encode, such as 640x368; None: the array's"""
    recon: str | None = Field(None, label="image's matrix")
    """rows x columns, such as 320x320; None: the encoded matrix"""
    center: int | None = Field(None, label="centre line", ge=0)
    """number of the line through the centre of k-space; None: the middle"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.source:
            raise WrongValueError("source", "source='': give a file of raw data, or a folder")
        if not self.dataset.strip():
            raise WrongValueError("dataset", "dataset='': give a name such as own")
        with concerning("shares"):
            read_shares(self.shares)
        self._choices()  # or refuses
        return self

    def looks(self) -> dict[str, Callable[[], object]]:
        """Look for the source."""
        return {"source": self._find_source}

    def _find_source(self) -> None:
        if not resolve(self.source).exists():
            raise FileNotFoundError(f"source={self.source!r}: no such file or folder")

    def _choices(self) -> Choices:
        axes = None
        if self.axes:
            axes = tuple(each.strip() for each in self.axes.split(","))
            if wrong := [each for each in axes if each not in AXES]:
                raise WrongValueError(
                    "axes", f"axes={self.axes!r}: {wrong[0]!r} is none of {', '.join(AXES)}"
                )
            if not {"readout", "phase"} <= set(axes) or len(set(axes)) < len(axes):
                raise WrongValueError(
                    "axes", f"axes={self.axes!r}: name readout and phase, and each axis once"
                )
        return Choices(
            axes=axes,
            variable=self.variable or None,
            matrix=_matrix("matrix", self.matrix),
            recon=_matrix("recon", self.recon),
            center=self.center,
            whiten=self.whiten,
        )

    def _folder(self) -> Path:
        named = "/" not in self.dataset and "\\" not in self.dataset
        return resolve(f"datasets/{self.dataset}" if named else self.dataset)

    def plan(self) -> Plan:
        """Look into every file of the source, and say what each becomes.

        Raises:
            FileNotFoundError: there is no such source.
            ValueError: nothing of it can be converted, or not into this dataset.
        """
        folder = self._folder()
        private = self.private or f"outputs/convert/{folder.name}"
        planned = plan_conversion(
            Ask(
                source=resolve(self.source),
                dataset=folder,
                private=resolve(private),
                form=self.form,
                choices=self._choices(),
                person=self.person,
                shares=self.shares,
                seed=self.seed,
                scale=self.scale,
                flip=self.flip,
                acquisition=self.acquisition,
            )
        )
        print("\n".join(lines_of(planned)))
        return planned

    def work(self, planned: Plan) -> tuple[str, list[tuple[str, str]]]:
        """Convert; return the dataset's folder, and what was refused with the reason."""
        from workbench.convert.run import convert

        refused = [*planned.refusals, *convert(planned)]
        open_cache(planned.ask.dataset)
        return str(planned.ask.dataset), [(each.path, each.reason) for each in refused]

    def result(self, left: tuple[str, list[tuple[str, str]]]) -> Converted:
        """Open the dataset that ``work`` left."""
        folder, refused = left
        return Converted(open_cache(folder), tuple(Problem(*each) for each in refused))

    def report(self, result: Converted) -> str:
        """Count what is there."""
        return f": {len(result.cache):,} volumes in {shown(result.cache.address)}"


def _matrix(name: str, text: str | None) -> tuple[int, int] | None:
    if not text:
        return None
    found = _MATRIX.fullmatch(text.strip())
    if not found or "0" in found.groups():
        raise WrongValueError(name, f"{name}={text!r}: give two lengths, such as 640x368")
    return int(found[1]), int(found[2])


# ---- what the cells below show ------------------------------------------------------------


def show_volumes(done: Converted) -> Any:
    """Show what each volume is, and what was done to make it."""
    from workbench.views.overview import volume_table

    return volume_table(done.cache)


def show_slices(done: Converted) -> Iterator[Any]:
    """Show k-space and image of the middle slice of some volumes."""
    from workbench.views.explore import kspace_and_image_figure
    from workbench.views.explored import open_slice

    for volume in list(done.cache)[:_SHOWN]:
        yield kspace_and_image_figure(open_slice(done.cache, volume.path))


def show_refused(done: Converted) -> Iterator[Any]:
    """Show the files that became nothing, with the reason."""
    from workbench.views.overview import problem_table

    problems = [*done.refused, *done.cache.problems]
    yield f"Files that became nothing: {len(problems)}"
    if problems:
        yield problem_table(problems)
