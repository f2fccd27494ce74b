import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workbench_demo.phantom.writing import write_volume


@pytest.fixture(scope="session")
def make_volume() -> Callable[..., Path]:
    """Write a small volume of noise in fastMRI's format: ``make_volume(path, slices=2, ...)``."""

    def make(
        path: Path,
        *,
        slices: int = 2,
        coils: int | None = 3,
        size: tuple[int, int] = (20, 14),
        recon: tuple[int, int] = (10, 10),
        target: bool = True,
        acquisition: str = "AXT2",
        **more,
    ) -> Path:
        random = np.random.default_rng(sum(path.name.encode()))
        shape = (slices, *size) if coils is None else (slices, coils, *size)
        kspace = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
        image = random.uniform(size=(slices, *recon)).astype(np.float32) if target else None
        return write_volume(
            path,
            kspace=kspace,
            target=image,
            recon=recon,
            acquisition=acquisition,
            patient_id="0123abcd",
            **more,
        )

    return make


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, make_volume: Callable[..., Path]) -> Path:
    """What ``dataset`` is a copy of, for tests that change nothing in it."""
    root = tmp_path_factory.mktemp("made") / "brain_multicoil"
    for number, acquisition in enumerate(("AXT1", "AXT2", "AXFLAIR")):
        make_volume(
            root / f"multicoil_train/file{number}.h5", acquisition=acquisition, acquired=(2, 13)
        )
    make_volume(root / "multicoil_val/file10.h5", coils=4)
    make_volume(root / "multicoil_val/file11.h5", size=(24, 18), slices=3)
    sampled = np.arange(14) % 3 == 0
    make_volume(
        root / "multicoil_test_v2/file20.h5",
        target=False,
        mask=sampled,
        attributes={"acceleration": 3},
    )
    return root


@pytest.fixture
def dataset(tmp_path: Path, made_once: Path) -> Path:
    """A dataset of three splits: 3 training, 2 validation, 1 test volumes; 13 slices."""
    return shutil.copytree(made_once, tmp_path / "brain_multicoil")
