"""Reconstructions that learn nothing: what they solve, and how they go through the workbench."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import workbench
from tests.recon.conftest import made
from workbench.compute.jobs import training_job
from workbench.data.cache import load_cache
from workbench.data.masks import draw_mask
from workbench.data.sampling import MASKS, Sampling, seed_of_file
from workbench.models import NETWORKS, trains, unusual_options
from workbench.models.classical.maps import centre_maps, espirit_maps
from workbench.models.classical.solvers import TotalVariation, conjugate_gradient, fista
from workbench.models.classical.wavelets import WaveletThreshold, level_matrix, low_pass
from workbench.models.operator import center_columns
from workbench.recon.orders import begin
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.results import Results
from workbench.recon.weights import untrained
from workbench.views.compared import find_compared, labels_of
from workbench.views.comparison import comparison_table, methods_figure
from workbench.views.export.results import export_results
from workbench.views.uncertainty import uncertainty_figures

METHODS = ("sense", "wavelet", "tv")
every_method = pytest.mark.parametrize("method", METHODS)


def slice_of(coils=4, height=64, width=48, noise=0.0, seed=0):
    """Measure a disc with bars by some coils; return k-space, mask, image and maps."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.linspace(-1, 1, size) for size in (height, width))
    distance = torch.hypot(rows[:, None] * 1.6, columns * 1.3)
    image = (distance < 1) * (1 + 0.4 * (torch.sin(14 * columns) > 0))
    angles = torch.arange(coils) * 2 * torch.pi / coils
    away = (rows[:, None] - angles.cos()[:, None, None]) ** 2
    away = away + (columns - angles.sin()[:, None, None]) ** 2
    maps = torch.exp(-away / 2) * torch.exp(1j * (angles[:, None, None] + columns))
    maps = maps / maps.abs().square().sum(0).sqrt()
    random = torch.randn(2, *maps.shape, generator=generator)
    coil_images = image * maps + noise * torch.complex(*random)
    kspace = torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(coil_images, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
    )
    mask = torch.zeros(1, 1, 1, width, 1, dtype=torch.bool)
    mask[..., 1::3, :] = True
    mask[..., width // 2 - 5 : width // 2 + 5, :] = True
    masked = torch.view_as_real(kspace[None]) * mask
    return masked, mask, image, maps


# ---- what they solve ----------------------------------------------------------------------


def test_conjugate_gradients_solve_every_slice_of_a_batch():
    torch.manual_seed(0)
    matrix = torch.randn(2, 6, 6, dtype=torch.complex128)
    matrix = matrix @ matrix.mH + torch.eye(6)
    right = torch.randn(2, 1, 1, 6, dtype=torch.complex128)
    right[1] *= 1e-6

    def operator(x):
        return torch.einsum("bij,bklj->bkli", matrix, x)

    found = conjugate_gradient(operator, right, 12)
    expected = torch.linalg.solve(matrix, right[:, 0, 0, :, None])[..., 0]
    assert torch.allclose(found[:, 0, 0], expected, rtol=1e-8, atol=0)
    assert not conjugate_gradient(operator, torch.zeros_like(right), 3).any()


@pytest.mark.parametrize("name", ["haar", "db2", "db4"])
def test_wavelets_are_daubechies_and_orthogonal(name):
    taps = np.array(low_pass(name))
    moments = 1 if name == "haar" else int(name[2:])
    assert len(taps) == 2 * moments
    assert taps.sum() == pytest.approx(2**0.5)
    if name == "db2":
        assert np.allclose(4 * 2**0.5 * taps, [1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5])
    for size in (16, 22):
        matrix = level_matrix(name, size)
        assert np.allclose(matrix @ matrix.T, np.eye(size), atol=1e-10)
        # Polynomials have no detail, but where the ends meet.
        detail = matrix[size // 2 :] @ np.arange(size) ** (moments - 1.0)
        assert np.allclose(detail[: size // 2 - moments + 1], 0, atol=1e-6)


@pytest.mark.parametrize("shifts", [None, 3])
def test_wavelet_threshold_is_a_pure_function_and_zero_weight_changes_nothing(shifts):
    image = torch.randn(2, 1, 35, 42, dtype=torch.complex64)

    def threshold(weight):
        return WaveletThreshold("db4", image, torch.full((2, 1, 1, 1), weight), shifts)

    assert torch.allclose(threshold(0.0)(image, 5), image, atol=1e-5)
    first, again, other = (threshold(0.1)(image, number) for number in (5, 5, 6))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (shifts is None)
    assert first.abs().sum() < image.abs().sum()


def test_total_variation_step_is_the_minimum():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 12, 9, dtype=torch.complex128)
    weight = torch.tensor(0.3, dtype=torch.float64)
    found = TotalVariation(weight)(image, steps=2000)

    def cost(x):
        down = torch.diff(x, dim=-2, append=x[..., -1:, :])
        right = torch.diff(x, dim=-1, append=x[..., -1:])
        total = (down.abs() ** 2 + right.abs() ** 2).sqrt().sum()
        return float((x - image).abs().square().sum() / 2 + weight * total)

    lowest = cost(found)
    for step in (1e-2, 1e-4):
        around = [found + step * torch.randn_like(found) for _ in range(20)]
        assert all(cost(each) > lowest for each in around)
    assert abs(complex((found - image).mean())) < 1e-6  # the mean stays


def test_fista_with_nothing_to_regularise_inverts_the_operator():
    right = torch.randn(1, 1, 4, 4, dtype=torch.complex128)
    found = fista(lambda x: 0.5 * x, right, lambda x, _: x, 200)
    assert torch.allclose(found, 2 * right)


@pytest.mark.parametrize("estimate", [centre_maps, espirit_maps])
@pytest.mark.parametrize("rows", [None, 40])
def test_maps_are_those_of_the_coils_but_for_a_phase_in_every_pixel(estimate, rows):
    masked, mask, image, true = slice_of()
    kspace = torch.view_as_complex(masked)
    maps = estimate(kspace, center_columns(mask[..., 0], 10), rows)[0]
    if rows:
        true, image = true[:, 12:-12], image[12:-12]
    assert maps.shape == true.shape
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(()), atol=1e-4)  # none is cropped
    likeness = (maps.conj() * true).sum(0).abs()[image > 0]
    assert likeness.mean() > (0.998 if estimate is espirit_maps else 0.98)


def test_espirit_says_what_it_needs():
    masked, mask, *_ = slice_of()
    with pytest.raises(ValueError, match=r"wants 6 fully sampled columns.*there are 4: give maps"):
        untrained("sense", {"maps": "espirit"})(masked, mask, 4)


@every_method
def test_error_is_less_than_without_it_and_in_the_unit_of_kspace(method):
    masked, mask, image, _ = slice_of(noise=0.01)
    network = untrained(method, {"regularisation": 0.005})
    filled = torch.fft.fftshift(
        torch.fft.ifft2(
            torch.fft.ifftshift(torch.view_as_complex(masked), dim=(-2, -1)), norm="ortho"
        ),
        dim=(-2, -1),
    ).abs().square().sum(1).sqrt()[0]  # fmt: skip
    found = network(masked, mask, 10)[0]
    assert (found - image).norm() < 0.5 * (filled - image).norm()
    assert torch.allclose(network(1e-5 * masked, mask, 10)[0], 1e-5 * found, rtol=1e-3, atol=1e-8)
    assert torch.equal(network(masked, mask, 10)[0], found)


@every_method
def test_measured_lines_stay_as_measured_and_air_keeps_its_noise(method):
    masked, mask, image, _ = slice_of(noise=0.02)
    coils = untrained(method).coil_images(masked, mask, 10)
    kspace = torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(coils, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
    )
    assert torch.allclose(kspace * mask[..., 0], torch.view_as_complex(masked), atol=1e-4)
    air = coils.abs().square().sum(1).sqrt()[0][image == 0]
    assert air.mean() > 0.01


@every_method
def test_batch_and_cropped_rows_give_what_each_slice_gives(method):
    (first, mask, *_), (second, *_) = slice_of(noise=0.01), slice_of(noise=0.01, seed=1)
    network = untrained(method, {"regularisation": 0.002})
    both = network(torch.cat((first, 3 * second)), mask, 10)
    assert torch.allclose(both[0], network(first, mask, 10)[0], atol=1e-5)
    assert torch.allclose(both[1], 3 * network(second, mask, 10)[0], atol=1e-3)
    network.readout_margin = 8
    few = network(first, mask, 10, rows=32)
    assert few.shape == (1, 48, 48)
    whole = network(first, mask, 10)[:, 16:48]
    assert (few[:, 8:40] - whole).norm() < 0.03 * whole.norm()


@every_method
def test_slice_without_signal_is_zero(method):
    masked, mask, *_ = slice_of()
    assert not untrained(method)(0 * masked, mask, 10).any()


@every_method
def test_autocast_changes_nothing(method):
    """In bfloat16 the products of wavelets were rounded in each iteration, to another image."""
    masked, mask, *_ = slice_of(noise=0.01)
    network = untrained(method)
    expected = network(masked, mask, 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(masked, mask, 10), expected)


def test_total_variations_weight_is_fastmris_by_acquisition_and_acceleration():
    _, mask, *_ = slice_of()
    network = untrained("tv")

    def weight(acquisition, sampled):
        return float(network.for_acquisition(acquisition).weight(sampled))

    sparse = torch.zeros(1, 1, 1, 60, dtype=torch.bool)
    sparse[..., ::8] = True
    assert weight("CORPDFS_FBK", mask[..., 0]) == pytest.approx(0.001)
    assert weight("CORPDFS_FBK", sparse) == pytest.approx(0.01)
    assert weight("AXFLAIR", sparse) == pytest.approx(0.001)
    assert weight("of one's own", mask[..., 0]) == pytest.approx(0.01)
    assert network.acquisition == ""


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("rate", "centre", "wanted"), [(4, 0.08, 0.001), (8, 0.04, 0.01)])
@pytest.mark.parametrize(
    ("width", "acquired"), [(368, (0, 368)), (372, (26, 346)), (396, (60, 320))]
)
def test_padding_and_centre_make_no_acceleration(kind, rate, centre, wanted, width, acquired):
    """Of columns that a scanner leaves out, 4x had the weight of 8x, by chance or always."""
    network = untrained("tv").for_acquisition("CORPDFS_FBK")
    sampling, found = Sampling(kind, rate, centre), []
    for number in range(40):
        mask, _ = draw_mask(sampling, width, seed_of_file(f"file{number}.h5"), acquired)
        found.append(float(network.weight(torch.from_numpy(mask).view(1, 1, 1, -1))))
    assert np.mean(np.isclose(found, wanted)) > 0.9  # of random masks, some are of another spacing
    if kind != "random":
        np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("sense", "regularisation=-1", "regularisation=-1: give a number, 0 or more"),
        ("sense", "wavelet=haar", "CG-SENSE has no argument wavelet; it has regularisation"),
        ("wavelet", "wavelet=sym4", "wavelet='sym4': give one of haar, db2"),
        ("wavelet", "shifts=2", "shifts=2: give True or False"),
        ("tv", "iterations=0", "iterations=0: give a whole number, 1 or more"),
        ("tv", "maps=walsh", "maps='walsh': give one of auto, centre, espirit"),
        ("tv", "regularisation=much", "regularisation='much': give a number"),
    ],
)
def test_wrong_option_is_refused_before_the_dataset_is_opened(method, options, said, project):
    with pytest.raises(ValueError, match=re.escape(said)):
        plan_reconstruction(network=method, network_options=options, local_dataset="nowhere")


# ---- through the workbench ----------------------------------------------------------------


@pytest.fixture
def run(project, study, released):
    """A run's results, of weights that never learned anything."""
    _, weights = released
    return made(plan_reconstruction(run="r", weights=str(weights), local_dataset=str(study)))


def test_they_do_not_train_and_say_so(study):
    assert [name for name in NETWORKS if not trains(name)] == list(METHODS)
    with pytest.raises(ValueError, match=r"network='tv' learns nothing.*reconstruct network=tv"):
        training_job(study, synthetic=False, model="brain", network="tv")


@every_method
def test_split_is_reconstructed_without_weights_and_again_with_other_options(
    method, project, study
):
    plan = plan_reconstruction(network=method, local_dataset=str(study))
    assert plan.folder == project / f"outputs/{method}/reconstructions/val-equispaced-4x-0.08"
    assert f"network    {NETWORKS[method].label}: " in str(plan)
    found = made(plan)
    assert {each.network for each in found} == {method}
    assert found.labels["reconstruction"] == NETWORKS[method].label
    for each in found:
        assert each.reconstruction["ssim"] > each.zero_filled["ssim"]
    assert plan_reconstruction(network=method, local_dataset=str(study)).order.volumes == ()
    other = plan_reconstruction(
        network=method, local_dataset=str(study), network_options="regularisation=0.5"
    )
    assert len(other.order.volumes) == 2
    assert other.folder.name == f"{plan.folder.name}-regularisation=0.5"
    order = json.loads((plan.folder / "reconstruction.json").read_text())
    assert order["network_options"] == found.order.network_options
    assert "iterations=" in order["network_options"]


def test_results_lie_beside_the_runs_and_are_compared_by_name(run, study):
    plans = {
        name: plan_reconstruction(run="r", network=name, local_dataset=str(study))
        for name in ("sense", "wavelet")
    }
    names = {name: plan.folder.name for name, plan in plans.items()}
    assert names == {name: f"{run.folder.name}-{name}" for name in plans}
    with pytest.raises(FileNotFoundError, match="compare='wavelet'"):
        find_compared("wavelet", run.folder, run.order)
    for plan in plans.values():
        made(plan)
    compared = find_compared("wavelet, sense", run.folder, run.order)
    assert [each.folder for each in compared] == [plans[n].folder for n in ("wavelet", "sense")]
    assert labels_of([run, *compared]) == ["r", "r, L1-wavelet", "r, CG-SENSE"]
    (back,) = find_compared("r", compared[0].folder, compared[0].order)
    assert back.folder == run.folder
    (other,) = find_compared("sense", compared[0].folder, compared[0].order)
    assert other.folder == plans["sense"].folder
    assert [e.folder for e in find_compared("wavelet@4x", run.folder, run.order)] == [
        plans["wavelet"].folder
    ]
    figure = methods_figure([run, *compared])
    titles = " ".join(axes.get_title() for axes in figure.axes)
    assert all(name in titles for name in ("L1-wavelet", "CG-SENSE", "VarNet", "zero-filled"))
    assert workbench.Results("outputs/r").folder == run.folder  # its own, not what lies beside


def wavelet_with(options, study):
    return plan_reconstruction(
        run="r", network="wavelet", local_dataset=str(study), network_options=options
    )


def test_results_with_other_options_are_kept_apart_and_say_so_wherever_they_are_shown(run, study):
    usual, few, tiny = (
        made(wavelet_with(options, study))
        for options in (None, "iterations=2", "iterations=2, regularisation=1e-05")
    )
    assert [each.folder.name.removeprefix(run.folder.name) for each in (usual, few, tiny)] == [
        "-wavelet",
        "-wavelet-iterations=2",
        "-wavelet-regularisation=1e-05-iterations=2",
    ]
    for compare, folder in {
        "wavelet": usual,
        "wavelet@4x": usual,
        "wavelet@iterations=2": few,
        "r@wavelet-iterations=2-regularisation=1e-05": tiny,
    }.items():
        (one,) = find_compared(compare, run.folder, run.order)
        assert one.folder == folder.folder
    labels = ["L1-wavelet", "L1-wavelet (iterations=2)"]
    labels += ["L1-wavelet (regularisation=1e-05, iterations=2)"]
    sets = [usual, few, tiny]
    assert [each.labels["reconstruction"] for each in sets] == labels
    assert labels_of([run, *sets]) == ["r", *(f"r, {label}" for label in labels)]
    table = comparison_table([run, *sets])
    assert set(table["", "network"]) == {"VarNet", *labels}
    figure = methods_figure([run, *sets])
    titles = " ".join(axes.get_title().replace("\n", " ") for axes in figure.axes)
    assert all(label in titles for label in labels)


def test_a_result_is_not_shown_as_what_its_folder_is_to_hold_instead(run, study):
    found = made(wavelet_with("iterations=2", study))
    order = found.order
    begin(
        replace(order, network_options=order.network_options.replace("=2", "=3")),
        load_cache(found.folder),
        found.folder,
    )
    with pytest.raises(FileNotFoundError, match="no results of what was asked for last"):
        Results(found.folder)


@pytest.mark.parametrize(
    ("synthetic", "options", "said"),
    [
        (True, "regularisation=0.002, wavelet='haar', iterations=60", ""),
        (False, "regularisation=0.002, wavelet='haar'", "regularisation=0.002, wavelet=haar"),
        (False, "regularisation=0.005, wavelet='db4', seed=0", ""),
        (False, None, ""),
        (False, "damaged", "damaged"),
    ],
)
def test_usual_options_are_those_of_the_dataset(synthetic, options, said):
    assert unusual_options("wavelet", options, synthetic=synthetic) == said
    assert unusual_options("varnet", options, synthetic=synthetic) == ""


def test_report_and_uncertainty_take_them(run, study):
    found = made(
        plan_reconstruction(
            run="r", network="wavelet", local_dataset=str(study), network_options="iterations=3"
        )
    )
    assert len(list(export_results(found, ["report"]))) == 1
    report = (found.folder.parents[1] / "report.html").read_text()
    assert "L1-wavelet (iterations=3)" in report
    figures = list(uncertainty_figures(found, 3))
    assert len(figures) == 3
    assert all(figure._repr_png_() for figure in figures)


def test_weights_and_a_missing_run_are_refused_in_plain_words(project, study):
    with pytest.raises(ValueError, match=r"weights='x\.pt': tv has none, leave them out"):
        plan_reconstruction(network="tv", weights="x.pt", local_dataset=str(study))
    with pytest.raises(FileNotFoundError, match="no run in outputs/brain"):
        plan_reconstruction(network="tv")


def test_script_loads_one_by_name(study):
    volumes = workbench.open_dataset(study).split("val")
    sample = workbench.SliceDataset(volumes, workbench.Sampling()).slice_of(volumes[0], 1)
    model = workbench.load_model("wavelet", options={"regularisation": 0.002})
    assert model.config.regularisation == 0.002
    assert workbench.reconstruct(model, sample).shape == sample.target.shape
