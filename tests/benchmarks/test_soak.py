"""The soak tells growth from ups and downs; the exactness table holds what it says."""

import torch

from benchmarks.exactness import exactness
from benchmarks.pairs import operations
from benchmarks.sizes import SIZES
from benchmarks.soak import ALLOWED, Sample, growth, soak


def samples(memory, files=lambda _: 6):
    return [Sample(100 * n, memory(n), files(n)) for n in range(1, 21)]


def test_a_leak_is_growth_and_ups_and_downs_are_none():
    assert growth(samples(lambda n: 500 + 2 * n))[0] > ALLOWED
    assert growth(samples(lambda n: 500 + 20 * (n % 2)))[0] <= ALLOWED
    assert growth(samples(lambda n: 300 + min(n, 5) * 40))[0] <= ALLOWED
    assert growth(samples(lambda _: 500, files=lambda n: 6 + n))[1] > 0


def test_soak_samples_memory_and_open_files_as_it_trains():
    found = soak(4, samples=2)
    assert [sample.step for sample in found] == [2, 4]
    assert all(sample.memory > 50 and sample.files >= 3 for sample in found)


def test_float64_is_exact_and_float32_no_further_than_twice_fastmris_own():
    for row in exactness(SIZES["toy"]):
        assert max(row.float64) < 1e-10
        for ours, reference in zip(row.float32, row.reference, strict=True):
            assert 0 < ours < 2 * reference


def test_operations_of_a_convolution_are_counted():
    image, weight = torch.ones(1, 2, 8, 8), torch.ones(3, 2, 3, 3)
    count = operations(lambda: torch.conv2d(image, weight, padding=1))
    assert count == 2 * 3 * 2 * 9 * 64
