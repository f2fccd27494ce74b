import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from workbench.views.samples import Samples, samples_figure


def log(folder, epochs, names=("file1000.h5 slice 3",)):
    """Log images as a training does: one channel, values from 0 to 1, epochs from 0."""
    with SummaryWriter(folder / "tensorboard") as writer:
        for epoch in epochs:
            for name in names:
                for kind in ("reconstruction", "target", "error"):
                    image = np.full((1, 8, 6), 0.1 * (epoch + 1), np.float32)
                    writer.add_image(f"{name}/{kind}", image, epoch)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_samples_are_read_by_slice_kind_and_epoch_from_one(tmp_path):
    log(tmp_path, [0, 1])
    samples = Samples(tmp_path)
    assert samples.read()
    assert samples.epochs == [1, 2]
    (kinds,) = samples.images.values()
    assert set(kinds) == {"reconstruction", "target", "error"}


def test_new_epoch_is_seen_and_nothing_new_is_said_to_be_so(tmp_path):
    samples = Samples(tmp_path)
    assert not samples.read()
    assert samples_figure(samples) is None
    log(tmp_path, [0])
    assert samples.read()
    assert not samples.read()
    log(tmp_path, [1])  # a run that goes on writes a file of its own
    assert samples.read()
    assert samples.epochs == [1, 2]


def test_epochs_of_a_start_that_was_begun_anew_are_forgotten(tmp_path):
    """As where last.ckpt was removed, or a run goes on from before its last samples."""
    samples = Samples(tmp_path)
    log(tmp_path, range(5))
    assert samples.read()
    log(tmp_path, [2])
    assert samples.read()
    assert samples.epochs == [1, 2, 3]
    log(tmp_path, [0], ["other.h5 slice 1"])
    again = Samples(tmp_path)
    for each in (samples, again):
        assert each.read()
        assert each.epochs == [1]
        assert titles(samples_figure(each)) == ["epoch 1", "target", "error", "", ""]


def test_figure_shows_first_and_last_epoch_target_and_error(tmp_path):
    log(tmp_path, range(9), ["file1000.h5 slice 3", "file1001.h5 slice 0"])
    samples = Samples(tmp_path)
    samples.read()
    figure = samples_figure(samples, synthetic=True)
    row = ["epoch 1", "epoch 4", "epoch 6", "epoch 9", "target", "error"]
    assert titles(figure) == row + [""] * 6 + [""] * 2
    bars = [axes.get_ylabel() for axes in figure.axes[-2:]]
    assert bars == ["signal, % of the slice's maximum", "error, % of the slice's maximum"]
    errors = {figure.axes[place].images[0].get_clim() for place in (5, 11)}
    assert len(errors) == 1
    drawn = [axes.images[0].get_array().mean() for axes in figure.axes[:4]]
    assert drawn == pytest.approx([10, 40, 60, 90], abs=1)


def test_slice_that_the_last_epoch_lacks_is_left_out(tmp_path):
    log(tmp_path, [0], ["a.h5 slice 0", "b.h5 slice 0"])
    log(tmp_path, [1], ["a.h5 slice 0"])
    samples = Samples(tmp_path)
    samples.read()
    # a's two epochs, its target, its error; a colour bar of either kind
    assert titles(samples_figure(samples)) == ["epoch 1", "epoch 2", "target", "error", "", ""]
