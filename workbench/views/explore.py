"""One slice of one volume, looked at from all sides: k-space, coils, masks, header."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from workbench.data.images import (
    center_crop,
    centered_ifft2,
    sensitivity_maps,
    zero_filled,
)
from workbench.data.sampling import Sampling
from workbench.data.slices import keep_columns
from workbench.data.volume import Volume
from workbench.views.anatomy import (
    kspace_and_image_figure,
    largest_signal,
    oversampling_figure,
    padding_figure,
    profiles_figure,
)
from workbench.views.annotations import Annotations, draw_boxes
from workbench.views.explored import (
    ExploredSlice,
    find_volume,
    open_slice,
    read_explored,
    sampling_of,
)
from workbench.views.kspace import (
    coils_figure,
    kspace_and_mask_figure,
    point_spread_figure,
    sensitivities_figure,
)
from workbench.views.reconstructions import contact_sheet, reconstruction_figure, slice_scores
from workbench.views.style import add_colour_bar, new_figure, show_image, window_of

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "ExploredSlice",
    "aliasing_figure",
    "annotated_figure",
    "coil_images_figure",
    "combination_figure",
    "find_volume",
    "frequencies_figure",
    "kspace_and_image_figure",
    "kspace_figure",
    "masks_figure",
    "open_slice",
    "oversampling_figure",
    "padding_figure",
    "profiles_figure",
    "read_explored",
    "sampling_of",
    "sensitivity_maps_figure",
    "slices_figure",
    "spread_figure",
    "volume_table",
]


def volume_table(volume: Volume) -> "DataFrame":
    """Return what the header and the attributes of a volume say, and what it means."""
    from pandas import DataFrame

    height, width = volume.matrix
    own = volume.own_mask
    recon = " × ".join(map(str, volume.recon))
    target = volume.target.shape if volume.target else None
    rows = [
        ("acquisition", volume.acquisition or "not said", "sequence and orientation"),
        ("split", volume.split, "what fastMRI keeps it for"),
        ("slices", volume.slices, ""),
        ("coils", volume.coils, "receivers that listened at the same time"),
        ("k-space", f"{height} × {width}", "readout samples × phase-encode lines"),
        (
            "acquired lines",
            f"{volume.padding_left} to {volume.padding_right - 1}",
            "the lines outside are zero padding",
        ),
        ("reconstruction", recon, "x readout, y phase encode, z; the header's"),
        (
            "target",
            "none" if target is None else f"{volume.target_name}, {target[1]} × {target[2]}",
            "the image to be reached",
        ),
        (
            "own mask",
            "none" if own is None else f"{own.sum()} of {width} lines",
            "test volumes are stored undersampled",
        ),
    ]
    known = {"acquisition"}
    meanings = {
        "max": "largest target value, arbitrary units; the data range of SSIM and PSNR",
        "norm": "Euclidean norm of the target",
        "patient_id": "a hash",
        "acceleration": "of its own mask",
        "num_low_frequency": "ACS lines of its own mask",
    }
    rows += [
        (name, f"{value:.6g}" if isinstance(value, float) else value, meanings.get(name, ""))
        for name, value in sorted(volume.attributes.items())
        if name not in known
    ]
    table = DataFrame(rows, columns=["field", "value", "meaning"]).set_index("field")
    return table.astype(str)


def kspace_figure(look: ExploredSlice, sampling: Sampling) -> Figure:
    """Show k-space, the mask, and what it leaves."""
    mask, low_frequencies = look.mask(sampling)
    title = look.title if look.undersampled else f"{look.title}: {sampling}"
    return kspace_and_mask_figure(
        look.kspace,
        mask,
        low_frequencies=low_frequencies,
        acquired=look.acquired,
        title=title,
        synthetic=look.volume.synthetic,
    )


def frequencies_figure(look: ExploredSlice, share: float = 0.08) -> Figure:
    """Show the images of k-space's centre and of the rest: contrast in one, edges in the other."""
    height, width = look.volume.matrix
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    centre = np.zeros((height, width), bool)
    top, left = (height - rows + 1) // 2, (width - columns + 1) // 2
    centre[top : top + rows, left : left + columns] = True
    images = [
        zero_filled(look.kspace * kept, look.crop)
        for kept in (np.ones_like(centre), centre, ~centre)
    ]
    names = ("all of k-space", f"the central {rows} × {columns} alone", "all but the centre")
    figure = new_figure(
        9.2,
        3.0 * look.crop[0] / look.crop[1] + 0.9,
        title=f"The centre of k-space holds contrast, the rest holds edges\n{look.title}",
        synthetic=look.volume.synthetic,
    )
    panels = figure.subplots(1, 3)
    percent = 100 / largest_signal(look, images[0])
    window = (0.0, window_of(images[0])[1] * percent)
    for axes, image, name in zip(panels, images, names, strict=True):
        drawn = show_image(axes, image * percent, window, name)
    add_colour_bar(figure, drawn, list(panels), "signal, % of maximum", extend="max")
    return figure


def coil_images_figure(look: ExploredSlice) -> Figure:
    """Show what each coil received, magnitude above and phase below."""
    several = look.volume.coils > 1
    said = "Each coil hears best what is near it" if several else "What the one coil received"
    return coils_figure(
        center_crop(centered_ifft2(look.kspace), look.crop),
        title=f"{said}\n{look.title}",
        synthetic=look.volume.synthetic,
    )


def combination_figure(look: ExploredSlice) -> Figure:
    """Show the root sum of squares of the coil images beside the target, and their difference."""
    combined = zero_filled(look.kspace, look.crop)
    if look.target is None:
        return contact_sheet(
            [combined],
            ["root sum of squares"],
            title=f"{look.title} has no target",
            synthetic=look.volume.synthetic,
        )
    target = center_crop(look.target, look.crop)
    percent = 100 / look.data_range
    difference = np.abs(combined - target) * percent
    largest = float(difference.max())
    figure = new_figure(
        9.6,
        3.0 * look.crop[0] / look.crop[1] + 0.7,
        title=f"The root sum of squares differs from the target by at most {largest:.2g} %"
        if largest
        else "The root sum of squares of the coil images is the target, to the last bit",
        synthetic=look.volume.synthetic,
    )
    panels = figure.subplots(1, 3)
    window = (0.0, window_of(target)[1] * percent)
    show_image(panels[0], combined * percent, window, "root sum of squares of the coil images")
    drawn = show_image(panels[1], target * percent, window, f"target ({look.volume.target_name})")
    error = show_image(panels[2], difference, (0, largest or 1.0), "difference", colours="inferno")
    add_colour_bar(figure, drawn, list(panels[:2]), "signal, % of maximum", extend="max")
    add_colour_bar(figure, error, [panels[2]], "% of maximum")
    return figure


def sensitivity_maps_figure(look: ExploredSlice, sampling: Sampling) -> Figure:
    """Show sensitivity maps estimated from the ACS lines of a mask."""
    low_frequencies = max(1, look.mask(sampling)[1])
    maps = sensitivity_maps(look.kspace, low_frequencies)
    return sensitivities_figure(
        center_crop(maps, look.crop),
        title=f"Sensitivity maps, estimated from {low_frequencies} ACS lines "
        "(low-resolution coil images over their root sum of squares)",
        synthetic=look.volume.synthetic,
    )


def annotated_figure(look: ExploredSlice, annotations: Annotations) -> Figure | None:
    """Show the annotated slices of the volume with their boxes; None where it has no box.

    Of many slices some are shown, the explored one among them where it has a box.
    """
    marked = sorted({each.slice for each in annotations.of(look.volume.path)})
    marked = [number for number in marked if number < look.volume.slices]
    if not marked:
        return None
    chosen = {marked[round(n)] for n in np.linspace(0, len(marked) - 1, min(8, len(marked)))}
    if look.number in marked:
        chosen.add(look.number)
    looks = [look.other(number) for number in sorted(chosen)]
    images = [
        each.target if each.target is not None else zero_filled(each.kspace, each.crop)
        for each in looks
    ]
    study = annotations.study_labels(look.volume.path)
    figure = contact_sheet(
        images,
        [f"slice {each.number}" for each in looks],
        title=f"{look.name}: fastMRI+'s findings on {len(marked)} of "
        f"{look.volume.slices} slices" + (f"\nwhole study: {', '.join(study)}" if study else ""),
        synthetic=look.volume.synthetic,
    )
    for axes, each, image in zip(figure.axes, looks, images, strict=False):
        draw_boxes(axes, annotations.of(look.volume.path, each.number), image.shape[0])
    return figure


def spread_figure(look: ExploredSlice, sampling: Sampling) -> Figure:
    """Plot where a mask sends the signal of one bright pixel."""
    mask, _ = look.mask(sampling)
    form = "its own mask" if look.undersampled else f"a mask {sampling}"
    return point_spread_figure(
        mask, title=f"One bright pixel, seen through {form}", synthetic=look.volume.synthetic
    )


def aliasing_figure(look: ExploredSlice, sampling: Sampling) -> Figure:
    """Show the zero-filled image of a mask beside the target; alone where there is no target."""
    image = zero_filled(keep_columns(look.kspace, look.mask(sampling)[0]), look.crop)
    if look.target is None:
        return contact_sheet(
            [image],
            ["zero-filled, its own mask"],
            title=f"{look.title} has no target to compare with",
            synthetic=look.volume.synthetic,
        )
    return reconstruction_figure(
        center_crop(look.target, look.crop),
        image,
        {},
        title=f"Aliasing: the object folds over itself\n{look.title}, {sampling}",
        data_range=look.data_range,
        synthetic=look.volume.synthetic,
    )


def masks_figure(look: ExploredSlice, center_fraction: float = 0.08) -> Figure:
    """Show the zero-filled images of three forms of mask at four accelerations, with their SSIM.

    Of a volume without target, or with a mask of its own, only that one image can be shown.
    """
    if look.undersampled or look.target is None:
        return aliasing_figure(look, Sampling())
    target = center_crop(look.target, look.crop)
    images, labels = [], []
    for form in ("equispaced", "equispaced_fraction", "random"):
        for acceleration in (2, 4, 6, 8):
            # The ACS takes half of the lines at most, so that some are left for the rest.
            fraction = min(center_fraction, 0.5 / acceleration)
            mask, _ = look.mask(Sampling(form, (acceleration,), (fraction,)))
            image = zero_filled(keep_columns(look.kspace, mask), look.crop)
            ssim = slice_scores(image, target, look.data_range)["ssim"]
            images.append(image * (100 / look.data_range))
            true = (look.acquired[1] - look.acquired[0]) / mask.sum()
            labels.append(f"{form} {acceleration}× (true {true:.1f}×)\nSSIM {ssim:.3f}")
    return contact_sheet(
        images,
        labels,
        columns=4,
        window=(0.0, window_of(target)[1] * 100 / look.data_range),
        title=f"Zero-filled images by form and acceleration of the mask\n{look.title}",
        synthetic=look.volume.synthetic,
    )


def slices_figure(look: ExploredSlice, most: int = 16) -> Figure:
    """Show the slices of the volume, root sum of squares; of many, some evenly apart."""
    count = look.volume.slices
    numbers = sorted({round(n) for n in np.linspace(0, count - 1, min(count, most))})
    looks = [look.other(number) for number in numbers]
    return contact_sheet(
        [zero_filled(each.kspace, look.crop) for each in looks],
        [f"slice {each.number}" + ("\nnot all finite" if each.bad else "") for each in looks],
        title=f"{look.name}: {look.volume.acquisition}, {count} slices",
        synthetic=look.volume.synthetic,
    )
