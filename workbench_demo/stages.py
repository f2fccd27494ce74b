"""The demo's stages: what each one runs, and which of them an earlier run has done already.

Stages go on where they stopped, and keep what is there: so one record says what all of it was made
from, and where that is another code or size today, all is made anew.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any

from workbench.command.running import run_page
from workbench.compute.jobs import run_folder
from workbench.settings import LINKS_VARIABLE, cores, notebooks, shown
from workbench.stores.disk import write_text
from workbench_demo.bucket import Bucket
from workbench_demo.pack import pack, packed_names
from workbench_demo.phantom.study import write_study
from workbench_demo.scanner import write_scans
from workbench_demo.sizes import Part, Size

_CODE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Stage:
    """One step of the demo.

    Attributes:
        name: such as "brain train".
        work: does it, until an event is set; it can be run again at any time and goes on where it
            stopped.
        leaves: what is there once it is done.
        page: the executed notebook, if it is one.
    """

    name: str
    work: Callable[[Event], None]
    leaves: tuple[Path, ...]
    page: Path | None = None

    @property
    def prefix(self) -> str:
        """Stands before each line that it prints: several stages run at a time."""
        return f"    {self.name} | "


def page_of(stage: Stage) -> Path:
    """Return the executed notebook of a stage that is one."""
    assert stage.page is not None
    return stage.page


@dataclass(frozen=True)
class Demo:
    """A demo of a size, in its folder."""

    size: Size

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return run_folder(self.size.name)

    @property
    def stages(self) -> list[Stage]:
        """All stages, in order."""
        return [*self.first, *(stage for lane in self.lanes for stage in lane)]

    @property
    def first(self) -> list[Stage]:
        """The stages that all others need."""
        return [self._phantom(), self._pack()]

    @property
    def lanes(self) -> list[list[Stage]]:
        """The other stages: those of a lane in their order, lanes at the same time."""
        parts = [[self._page(part, page) for page in part.pages] for part in self.size.parts]
        own = [[self._scanner(), *self._own_pages()]] if self.size.scans else []
        return [*parts, *own]

    @property
    def made_from(self) -> str:
        """A digest of its size and of all code that runs in it."""
        packages = (_CODE / name for name in ("workbench", "workbench_kernels", "workbench_demo"))
        files = (file for package in packages for file in package.rglob("*.*"))
        code = [file for file in files if file.suffix in (".py", ".c", ".h")]
        found = hashlib.sha256(repr(self.size).encode())
        for file in sorted([*code, *notebooks().glob("*.ipynb")]):
            found.update(hashlib.sha256(file.read_bytes()).digest())
        return found.hexdigest()

    def study(self, part: Part) -> Path:
        """Return the folder of a part's phantom, before it is packed."""
        return self.folder / "phantom" / part.dataset

    def run_name(self, part: Part) -> str:
        """Return the name of a part's training run."""
        return f"{self.size.name}/{part.name}"

    def _phantom(self) -> Stage:
        def work(_: Event) -> None:
            for part in self.size.parts:
                made = write_study(self.study(part), part.dataset, **part.study)
                size = sum(path.stat().st_size for path in made)
                print(
                    f"    phantom | {part.model}: {len(made)} volumes, {size / 1e6:.0f} MB",
                    flush=True,
                )

        return Stage("phantom", work, tuple(self.study(part) for part in self.size.parts))

    def _pack(self) -> Stage:
        bucket = self.folder / "bucket"

        def work(_: Event) -> None:
            packed = pack({p.dataset: self.study(p) for p in self.size.parts}, bucket)
            for archive in packed:
                size = (bucket / archive.name).stat().st_size
                print(f"    pack | {archive.name}: {size / 1e6:.1f} MB, {archive.kind}", flush=True)

        leaves = tuple(
            bucket / name
            for part in self.size.parts
            for name in packed_names(part.dataset, part.study["volumes"])
        )
        return Stage("pack", work, (*leaves, bucket / "SHA256"))

    def _scanner(self) -> Stage:
        """Measure with a scanner of one's own, whose files are ISMRMRD."""
        folder = self.folder / "scanner"

        def work(_: Event) -> None:
            made = write_scans(folder, self.size.scans)
            print(f"    scanner | {len(made)} ISMRMRD files, a person each", flush=True)

        return Stage("scanner", work, (folder,))

    def _own_pages(self) -> list[Stage]:
        """Convert the scanner's files, and reconstruct one without any training."""
        dataset = self.folder / "datasets" / "own"
        asked = {
            "convert": {
                "source": shown(self.folder / "scanner"),
                "dataset": shown(dataset),
                "private": shown(self.folder / "private"),
            },
            "reconstruct": {
                "network": "tv",
                "local_dataset": shown(dataset),
                "run": f"{self.size.name}/own",
            },
        }
        return [
            self._notebook(f"own {page}", f"own_{page}", page, parameters, (dataset,))
            for page, parameters in asked.items()
        ]

    def _notebook(
        self,
        name: str,
        stem: str,
        page: str,
        parameters: dict[str, Any],
        leaves: tuple[Path, ...],
    ) -> Stage:
        """Return the stage that runs a notebook."""
        source, output = notebooks() / f"{page}.ipynb", self.folder / f"{stem}.ipynb"

        def work(stop: Event) -> None:
            run_page(source, output, parameters, self._environment, prefix=stage.prefix, stop=stop)

        stage = Stage(name, work, (*leaves, output), output)
        return stage

    def _page(self, part: Part, page: str) -> Stage:
        parameters, leaves = self._parameters(part, page)
        name, stem = f"{part.name} {page}", f"{part.name}_{page}"
        stage = self._notebook(name, stem, page, parameters, leaves)
        if page != "ingest":
            return stage

        def ingest(stop: Event) -> None:
            bucket = self.folder / "bucket"
            names = [*packed_names(part.dataset, part.study["volumes"]), "SHA256"]
            with Bucket(bucket) as served:
                email = served.email(part.generation, names=names)
                environment = {**self._environment, LINKS_VARIABLE: email}
                source, prefix = notebooks() / f"{page}.ipynb", stage.prefix
                run_page(source, page_of(stage), parameters, environment, prefix=prefix, stop=stop)

        return replace(stage, work=ingest)

    def _parameters(self, part: Part, page: str) -> tuple[dict[str, Any], tuple[Path, ...]]:
        """Return a notebook's parameters, and what it leaves besides its pictures."""
        datasets = self.folder / "datasets"
        dataset, run = datasets / part.dataset, run_folder(self.run_name(part))
        where = {"local_dataset": shown(dataset)}
        if page == "ingest":
            return {"datasets": part.dataset, "root": shown(datasets)}, (dataset,)
        if page in ("cache", "explore"):
            return {"dataset": shown(dataset)}, (dataset / "dataset_cache.json",)
        if page == "train":
            named = {"model": part.model, "name": self.run_name(part)}
            return {**named, **where, **part.training}, (run / "checkpoints" / "best.ckpt",)
        nodes = part.training.get("nodes", 1)
        asked = {"run": self.run_name(part), "nodes": nodes, **where}
        if part.compare:  # what needs no training
            asked |= {"compare": part.compare, "make_missing": True}
        return asked, (run / "reconstructions",)

    @property
    def _environment(self) -> dict[str, str]:
        """The variables that every notebook of the demo gets."""
        # No proxy is to be asked for what this machine serves to itself.
        proxies = {
            name: ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost")))
            for name in ("no_proxy", "NO_PROXY")
        }
        # Lanes share the processors. OpenMP's threads spin while they wait for each other: where
        # anything else runs, that takes ten times as long.
        shared = {
            "OMP_NUM_THREADS": str(max(1, cores() // self.size.at_once)),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        }
        return {**proxies, **shared, LINKS_VARIABLE: ""}  # a person's own links are not for it


class Records:
    """What earlier runs have done: ``stages.json`` in the demo's folder."""

    def __init__(self, demo: Demo) -> None:
        self._path = demo.folder / "stages.json"
        self._made_from = demo.made_from
        found = json.loads(self._path.read_text()) if self._path.exists() else {}
        if found and found.get("made_from") != self._made_from:
            print(f"The demo has changed since {shown(demo.folder)} was made: it is made anew.")
            shutil.rmtree(demo.folder)
            found = {}
        self._stages: dict[str, dict[str, Any]] = found.get("stages", {})
        self._lock = Lock()
        if not found:
            self._write()

    def done(self, stage: Stage) -> bool:
        """Say whether a stage's result is there."""
        done = self._stages.get(stage.name, {}).get("done", False)
        return done and all(path.exists() for path in stage.leaves)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Record a stage's end, and the time that its work took.

        That of interrupted runs adds up; one that finds the work done already counts only if it
        took longer than the work.
        """
        before = self._stages.get(stage.name, {"seconds": 0.0, "done": True})
        began, done = time.monotonic(), False
        try:
            yield
            done = True
        finally:
            spent = time.monotonic() - began
            total = max(before["seconds"], spent) if before["done"] else before["seconds"] + spent
            with self._lock:
                self._stages[stage.name] = {"seconds": round(total, 1), "done": done}
                self._write()

    def _write(self) -> None:
        record = {"made_from": self._made_from, "stages": self._stages}
        write_text(self._path, json.dumps(record, indent=2))

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that each stage took when it was last done."""
        return {name: record["seconds"] for name, record in self._stages.items()}
