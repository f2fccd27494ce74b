"""Which cards a build of torch can use is known before a job is sent, and checked as it starts."""

import sys
from types import SimpleNamespace

import pytest

from workbench.compute import gpus
from workbench.compute.gpus import (
    UnusableGpuError,
    check_gpus,
    cluster_warnings,
    count_gpus,
    has_gpus,
    machine_of,
    missing_kernels,
)

CUDA_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CUDA_12_6 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@pytest.mark.parametrize(
    ("capability", "architectures", "usable"),
    [
        ((7, 0), CUDA_13, False),
        ((6, 1), CUDA_13, False),
        ((6, 1), CUDA_12_6, True),
        ((7, 5), CUDA_13, True),
        ((8, 9), CUDA_13, True),
        ((12, 0), CUDA_12_6, False),
        ((12, 0), (*CUDA_12_6, "compute_90"), True),
        ((9, 0), ("sm_90a",), True),
    ],
)
def test_kernels_fit_a_card_by_cudas_rules(capability, architectures, usable):
    assert (missing_kernels("card", capability, architectures) is None) == usable


def test_torch_counts_the_gpus_and_is_not_imported_where_there_is_no_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_with(True))
    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda name: name)
    assert count_gpus() == 1

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "torch", None)  # its import would fail
    monkeypatch.setattr(gpus.ctypes, "CDLL", missing)
    monkeypatch.setattr(gpus.sys, "platform", "linux")
    assert count_gpus() == 0


def test_old_cards_are_warned_of_before_a_job_is_sent():
    (warning,) = cluster_warnings("STANDARD_ND24S")
    assert "P40" in warning
    assert "torch_build='cu126'" in warning
    assert cluster_warnings("STANDARD_ND24S", "cu126") == []
    assert cluster_warnings("STANDARD_NC24ADS_A100_V4") == []
    assert "has no GPU" in cluster_warnings("STANDARD_D4S_V3")[0]
    assert "are not known here" in cluster_warnings("STANDARD_NC999_V9")[0]


def test_vm_sizes_are_known_in_any_case():
    assert machine_of("Standard_NC96ads_A100_v4").count == 4
    assert has_gpus("Standard_ND24s")
    assert not has_gpus("Standard_D4s_v3")


def torch_with(available, capability=(7, 0), cuda="13.0"):
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: available,
            device_count=lambda: 1,
            get_device_name=lambda _: "Tesla V100",
            get_device_capability=lambda _: capability,
            get_arch_list=lambda: list(CUDA_13),
        ),
    )


def test_card_without_kernels_is_named_with_driver_build_and_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_with(True))
    monkeypatch.setattr(gpus, "_driver", lambda: "Tesla V100, driver 535.1")
    with pytest.raises(UnusableGpuError) as caught:
        check_gpus(True)
    for part in ("Tesla V100", "7.0", "driver 535.1", "torch 2.13.0 (CUDA 13.0)", "cu126"):
        assert part in str(caught.value)


def test_node_that_was_promised_gpus_and_has_none_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_with(False))
    monkeypatch.setattr(gpus, "_driver", lambda: gpus._NO_DRIVER)
    with pytest.raises(UnusableGpuError, match="torch sees no GPU") as caught:
        check_gpus(True)
    assert "look in the studio whether the cluster's machines have GPUs" in str(caught.value)
    assert "cu126" not in str(caught.value)
    check_gpus(False)
    monkeypatch.setattr(gpus, "_driver", lambda: "Tesla V100, driver 440.1")
    with pytest.raises(UnusableGpuError, match=r"driver is too old.*cu126"):
        check_gpus(False)
