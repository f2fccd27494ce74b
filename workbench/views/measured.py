"""What was measured of a reconstructed volume: its k-space, target and mask, slice by slice."""

import numpy as np

from workbench.data.images import center_crop, zero_filled
from workbench.data.slices import SliceDataset, keep_columns
from workbench.data.volume import Volume
from workbench.recon.reconstruction_plan import Reconstruction, ReconstructionPlan, open_result


def volume_of(plan: ReconstructionPlan, result: Reconstruction) -> Volume:
    """Return the volume that a result is of."""
    return next(volume for volume in plan.cache if volume.path == result.volume)


def slices_of(plan: ReconstructionPlan, volume: Volume) -> SliceDataset:
    """Return a volume's slices, undersampled as it was reconstructed."""
    return plan.job.slices(volume)  # wherever the dataset lies, in blob storage too


def read_measured(
    plan: ReconstructionPlan, volume: Volume, number: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a slice's k-space (coils, H, W) as stored, and its target (h, w) or None."""
    kspace, target = slices_of(plan, volume).read(volume, number)
    # What was streamed cannot be written to, and torch warns of such arrays.
    kspace = np.require(kspace, requirements="W")
    target = None if target is None else np.require(target, requirements="W")
    return (kspace if kspace.ndim == 3 else kspace[None]), target


def read_targets(plan: ReconstructionPlan, volume: Volume) -> np.ndarray | None:
    """Read a volume's target (slices, h, w) float32; None where it has none."""
    if volume.target is None:
        return None
    pairs = (read_measured(plan, volume, number) for number in range(volume.slices))
    return np.stack([target for _, target in pairs if target is not None])


def read_image(result: Reconstruction, number: int) -> np.ndarray:
    """Read a reconstructed slice (h, w) float32."""
    with open_result(result.path) as file:
        return file["reconstruction"][number]


def zero_filled_slice(volume: Volume, kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Reconstruct k-space (coils, H, W) with zeros in place of what a mask (W,) leaves out."""
    return zero_filled(keep_columns(kspace, mask), volume.recon[:2])


def cropped(*images: np.ndarray) -> list[np.ndarray]:
    """Crop images (..., H, W) around their centres to the smallest height and width among them."""
    size = min(image.shape[-2] for image in images), min(image.shape[-1] for image in images)
    return [center_crop(image, size) for image in images]
