import numpy as np
import pytest

from workbench_demo.phantom.writing import write_volume


@pytest.fixture
def project(tmp_path):
    """A folder with a dataset of one small volume, which holds nothing else."""
    random = np.random.default_rng(1)
    kspace = (1e-4 * random.normal(size=(2, 2, 32, 24))).astype(np.complex64)
    write_volume(
        tmp_path / "project/datasets/knee_multicoil/multicoil_val/file1.h5",
        kspace=kspace,
        target=np.abs(kspace[:, 0, :16, :16]).astype(np.float32),
        recon=(16, 16),
        acquisition="CORPD_FBK",
        patient_id="1",
    )
    return tmp_path / "project"
