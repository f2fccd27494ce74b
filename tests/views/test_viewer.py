from dataclasses import replace

import numpy as np
import pytest

from workbench.data.cache import open_cache
from workbench.data.images import centered_fft2, centered_ifft2, root_sum_of_squares
from workbench.views import explore
from workbench.views.explored import open_slice
from workbench.views.style import SYNTHETIC_NOTE
from workbench.views.viewer.panes import Pane, error_pane, image_pane, volume_pane
from workbench.views.viewer.viewer import Viewer, viewer_figure
from workbench_demo.phantom.writing import write_volume


@pytest.fixture(scope="module", params=["multicoil", "singlecoil"])
def volume(request, tmp_path_factory):
    """A volume, what its file is, and its k-space with a coil axis."""
    random = np.random.default_rng(0)
    coils = 3 if request.param == "multicoil" else 1
    values = random.normal(size=(5, coils, 24, 32)).astype(np.float32).view(np.complex64)
    root = tmp_path_factory.mktemp("data") / f"knee_{request.param}"
    write_volume(
        root / f"{request.param}_val/file1.h5",
        kspace=values if coils > 1 else values[:, 0],
        target=None,
        recon=(12, 12),
        acquisition="CORPD_FBK",
        patient_id="1",
    )
    cache = open_cache(root)
    return cache.volumes[0], cache.file(cache.volumes[0]), values


def stack(slices=5, height=6, width=4):
    return np.arange(slices * height * width, dtype=np.float32).reshape(slices, height, width)


def pane_of(name, images):
    return image_pane(name, images.__getitem__, len(images))


def test_pane_of_a_volume_gives_coils_and_their_root_sum_of_squares(volume):
    described, file, kspace = volume
    pane = volume_pane(file, described)
    images = centered_ifft2(kspace)
    last = kspace.shape[1] - 1
    assert (pane.slices, pane.coils) == kspace.shape[:2]
    for number in (0, 4):
        np.testing.assert_array_equal(pane.read("kspace", number, last), kspace[number, last])
        np.testing.assert_allclose(
            pane.read("image", number, last), images[number, last], rtol=1e-5, atol=1e-6
        )
        for domain, values in (("image", images), ("kspace", kspace)):
            combined = pane.read(domain, number)
            assert combined.dtype == np.float32
            np.testing.assert_allclose(combined, root_sum_of_squares(values[number]), rtol=1e-5)


@pytest.mark.parametrize("volume", ["multicoil"], indirect=True)
def test_only_the_coil_that_is_looked_at_is_read(volume, tmp_path):
    described, file, kspace = volume
    cut = tmp_path / "cut.h5"
    cut.write_bytes(file.read_bytes()[: described.kspace.offset + kspace[0, 0].nbytes])
    pane = volume_pane(cut, replace(described, size=cut.stat().st_size))
    np.testing.assert_array_equal(pane.read("kspace", 0, 0), kspace[0, 0])
    with pytest.raises(OSError, match=r"cut\.h5 ends before slice \(0, 1\) of kspace does"):
        pane.read("kspace", 0, 1)


def test_kspace_of_images_is_their_transform_and_an_error_their_difference():
    images = stack()
    read = pane_of("target", images).read("kspace", 2)
    assert read.dtype == np.complex64
    np.testing.assert_array_equal(read, centered_fft2(images[2].astype(np.complex64)))
    first, second = pane_of("VarNet", images), pane_of("target", images + 2)
    pane = error_pane(first, second)
    assert pane.scale != first.scale == second.scale
    np.testing.assert_array_equal(pane.read("image", 3), np.full((6, 4), 2))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("image", 5), "slice 5: target has slices 0 to 4"),
        (("image", 0, 0), "coil 0: target has 0 coils"),
        (("phase", 0), "domain='phase'"),
    ],
)
def test_what_is_not_there_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        pane_of("target", stack()).read(*asked)


def test_sheet_shows_the_same_views():
    panes = [pane_of("target", stack(20)), pane_of("VarNet", stack(20) * 1.5)]
    panes.append(error_pane(panes[1], panes[0]))
    box = {"slice": 7, "x": 1, "y": 2, "width": 2, "height": 1, "label": "cyst"}
    figure = viewer_figure(panes, title="volume 1", slice_number=7, boxes=[box])
    shown = {axes.get_title(): axes for axes in figure.axes if axes.images}
    assert len(shown) == 12
    assert figure.get_suptitle() == "volume 1"
    names = ("target, slice 7", "VarNet, slice 7", "error, slice 7")
    target, image, error = (shown[name].images[0].get_clim() for name in names)
    assert target == image != error
    labels = {name: [text.get_text() for text in axes.texts] for name, axes in shown.items()}
    assert labels["VarNet, slice 7"] == ["cyst"]
    assert not any(texts for title, texts in labels.items() if "slice 7" not in title)
    pane = Pane("file1.h5", 3, lambda number, _: stack(3)[number], crop=(2, 4))
    figure = viewer_figure([pane], synthetic=True)
    assert figure.axes[0].images[0].get_array().shape == (2, 4)
    assert figure.get_supxlabel() == SYNTHETIC_NOTE


def test_explored_volume_is_shown_from_its_slice_in_the_viewer_or_on_a_sheet(volume, monkeypatch):
    explored = open_slice(str(volume[1].parents[1]), slice_number=3)
    assert "slice 3" in [axes.get_title() for axes in explore.explored_viewer(explored).axes]
    monkeypatch.setattr(explore, "interactive", lambda: True)
    assert explore.explored_viewer(explored).slice_number == 3


@pytest.fixture
def ask(monkeypatch):
    """Asks a viewer as the browser does; returns the last that it sent."""
    sent = []
    monkeypatch.setattr(Viewer, "send", lambda _, content, data=(): sent.append((content, data)))

    def ask(shown, **about):
        asked = {"kind": "plane", "edition": shown.edition, "pane": 0, "coil": -1, **about}
        shown._handle_custom_msg(asked, [])
        return sent[-1] if sent else None

    return ask


def test_first_slice_travels_with_the_viewer_bit_by_bit(ask):
    shown = Viewer([pane_of("target", stack()), pane_of("VarNet", -stack())], slice_number=2)
    first, second = shown.first["planes"]
    assert (second["pane"], second["slice"], second["shape"]) == (1, 2, [6, 4])
    for plane, values in ((first, stack()[2]), (second, -stack()[2])):
        np.testing.assert_array_equal(
            np.frombuffer(plane["data"], np.float32), np.ravel(values), strict=True
        )


def test_a_view_of_single_coils_begins_with_the_first_coil(volume):
    described, file, _ = volume
    panes = [volume_pane(file, described), pane_of("target", stack(described.slices))]
    shown = Viewer(panes)
    shown.view = "phase"
    shown.replace_panes(panes)
    assert shown.coil == 0
    first = [(each["domain"], each["coil"], each["complex"]) for each in shown.first["planes"]]
    assert first == [("image", 0, True), ("image", -1, False)]
    shown.view = "kspace"
    shown.replace_panes(panes)
    assert (shown.coil, shown.first["planes"][0]["domain"]) == (-1, "kspace")


def test_slice_that_cannot_be_read_is_said_and_not_sent(ask):
    def broken(number):
        if number:
            raise OSError(f"file1.h5 ends before slice {number}")
        return stack()[0]

    shown = Viewer([image_pane("target", broken, 2)], slice_number=0)
    content, data = ask(shown, domain="image", slice=1)
    assert (content["kind"], content["text"]) == ("failed", "file1.h5 ends before slice 1")
    assert not data


def test_what_was_asked_of_replaced_panes_is_not_answered(ask):
    shown = Viewer([pane_of("target", stack())])
    old = shown.edition
    shown.replace_panes([pane_of("target", stack(7))], title="another", slice_number=6)
    assert (shown.title, shown.slice_number) == ("another", 6)
    assert ask(shown, domain="image", slice=0, edition=old) is None
    assert ask(shown, domain="image", slice=0)[0]["kind"] == "plane"
