"""A project's folder of its own, and small datasets that can be trained on in seconds."""

from pathlib import Path

import numpy as np
import pytest

from workbench_demo.phantom.writing import write_volume


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory) -> Path:
    """Two training and two validation volumes of two small slices each."""
    root = tmp_path_factory.mktemp("tiny")
    for number in range(4):
        rng = np.random.default_rng(number)
        kspace = rng.normal(size=(2, 2, 32, 24, 2)).astype(np.float32).view(np.complex64)[..., 0]
        write_volume(
            root / f"multicoil_{'train' if number < 2 else 'val'}/file{number}.h5",
            kspace=kspace,
            target=np.abs(rng.normal(size=(2, 16, 16))).astype(np.float32),
            recon=(16, 16),
            acquisition="AXT2",
            patient_id=str(number),
            attributes={"synthetic": True},
        )
    return root
