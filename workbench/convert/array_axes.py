"""What the axes of an array are: as a person names them, or as its form fixes them.

BART's axes have fixed meanings (https://mrirecon.github.io/bart, mri.h); those of other arrays
must be named where there are more than readout and phase encode.
"""

from workbench.convert.array_files import StoredArray
from workbench.convert.scan import AXES, RefusedError

_BART = {0: "readout", 1: "phase", 3: "coil", 5: "volume", 10: "volume", 13: "slice", 14: "average"}


def named_axes(array: StoredArray, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Give an array the axes that a person names; MATLAB and BART drop or add axes of length 1.

    Raises:
        RefusedError: they do not fit it.
    """
    said = f"axes={', '.join(axes)!r}"
    for name in axes:
        if name not in AXES or axes.count(name) > 1:
            raise RefusedError(f"{said}: give each of {', '.join(AXES)} once at most")
    if not {"readout", "phase"} <= set(axes):
        raise RefusedError(f"{said}: name readout and phase among them")
    rest = array.shape[len(axes) :]
    if max(rest, default=1) > 1 or len(array.shape) < 2:
        raise RefusedError(f"has an array of {array.shape_text}, and {said} names {len(axes)} axes")
    paired = "complex" in axes and dict(zip(axes, array.shape, strict=False)).get("complex") == 2
    if paired != (array.kind == "real") or array.kind not in ("real", "complex"):
        raise RefusedError(
            f"has {array.kind} values, {array.shape_text}, and {said}: complex names an axis of 2, "
            "the real and imaginary part, of an array of real numbers"
        )
    return (*axes[: len(array.shape)], *("" for _ in rest))


def found_axes(
    array: StoredArray, matrix: tuple[int, int] | None, *, bart: bool
) -> tuple[str, ...]:
    """Find an array's axes where they can be nothing else.

    Raises:
        RefusedError: they can.
    """
    if array.kind != "complex":
        raise RefusedError(
            f"holds {array.kind} values, {array.shape_text}, and k-space is complex: where an axis "
            "holds real and imaginary part, give axes= with complex among them"
        )
    long = [axis for axis, length in enumerate(array.shape) if length > 1]
    if bart:
        return _found_by_bart(array, long)
    if len(long) > 2:
        raise RefusedError(
            f"has an array of {array.shape_text}, which does not say what its axes are: "
            f"{_advice(array.shape)}"
        )
    readout, phase = long
    if matrix and array.shape[readout] != matrix[0] == array.shape[phase]:
        readout, phase = phase, readout
    names = {readout: "readout", phase: "phase"}
    return tuple(names.get(axis, "") for axis in range(len(array.shape)))


def _found_by_bart(array: StoredArray, long: list[int]) -> tuple[str, ...]:
    names = [_BART.get(axis, "") for axis in long]
    give = _advice(array.shape)
    if array.shape[:1] == (1,) and {1, 2} <= set(long):
        raise RefusedError(
            f"has BART's axes of radial or spiral lines ({array.shape_text}): reconstruct it to "
            f"Cartesian lines first; where it is Cartesian, {give}"
        )
    if 2 in long:
        raise RefusedError(
            f"is 3-D ({array.shape_text}): transform its third axis with bart fft -i -u 4, then "
            f"{give}, with slice for that axis"
        )
    if "" in names or names.count("volume") > 1 or names[:2] != ["readout", "phase"]:
        raise RefusedError(
            f"has BART's axes {array.shape_text}, not all of which are known: {give}"
        )
    return tuple(_BART[axis] if axis in long else "" for axis in range(len(array.shape)))


def _advice(shape: tuple[int, ...]) -> str:
    """Say how to name an array's axes, such as here: the longest two are the image."""
    image = sorted(sorted(range(len(shape)), key=lambda axis: -shape[axis])[:2])
    others = iter(("coil", "slice", "volume", "average"))
    names = {image[0]: "readout", image[1]: "phase"} if len(image) == 2 else {}
    last = max((axis for axis, length in enumerate(shape) if length > 1), default=0)
    axes = ", ".join(names.get(axis) or next(others, "...") for axis in range(last + 1))
    return f"give axes={axes!r} or the like, of {', '.join(AXES)}, in order"
