"""One image file as uint8 pixels: as it is, or its middle square resized. numpy and Pillow only."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.catalog import InputError

Bytes = NDArray[np.uint8]
Read = TypeVar("Read")  # what an image is read as

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
# Named one by one because Pillow goes by the content: its EPS reader would start Ghostscript on
# a file that is merely called .png.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "I;16": "16-bit grey",
    "P": "palette",
    "RGBA": "RGB with alpha",
}
ORIENTATION = 0x0112  # EXIF's: how the camera was held
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DEEP = ("I", "F")  # begin the modes of grey of more than 8 bits, which Pillow would clip
NAMED = 5  # images that a refusal of several tells of
ADVICE = "; `--resize N` makes RGB squares of N pixels of images of any shape"


class Unfit(InputError):
    """An image that is sound, but not of the form that is asked for."""


def exact(path: Path, side: int | None) -> Bytes:
    """A square RGB image as it is.

    Args:
        path: Of the file.
        side: What it has to have (pixels); None: any.

    Returns:
        (1, 3, side, side).

    Raises:
        Unfit: It is not RGB, not square, or of another size.
        InputError: It cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            mode, (width, height) = image.mode, image.size
            # The header is judged before the pixels: a huge image is refused, not unpacked.
            if mode == "RGB" and width == height and side in (None, width):
                return _channels_first(np.asarray(image))
    except Exception as error:  # Pillow's readers raise every kind on a broken file
        raise _unreadable(path, error) from None
    if mode != "RGB":
        named = f"{MODES[mode]}, " if mode in MODES else ""
        raise Unfit(
            f"{str(path)!r} is no RGB image ({named}mode {mode}): convert the images to RGB"
        )
    expected = f"{side}x{side} like the images before it" if side else "a square image"
    raise Unfit(f"{str(path)!r} is {width}x{height} pixels, expected {expected}")


def square(path: Path, side: int, *, banner: int = 0, photo: bool = False) -> Bytes:
    """The middle square of an image of any shape and mode, as RGB, resized.

    Pillow's bilinear filter, which averages when it makes smaller. Colours behind transparent
    pixels are taken as they are.

    Args:
        path: Of the file.
        side: Of the result (pixels).
        banner: Rows at the bottom that do not belong to the image.
        photo: Turned upright by its EXIF, and a JPEG of twice the side or more is decoded at a
            smaller scale first: twice as fast, and no value moves by more than a few of 255.

    Returns:
        (1, 3, side, side).

    Raises:
        InputError: It cannot be read, or is grey of more than 8 bits.
    """
    try:
        # Ignored: e.g. that a palette's transparent colour is bytes, or that the image is large.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            mode = image.mode
            if not mode.startswith(DEEP):
                return _channels_first(_cut(image, side, banner, photo))
    except Exception as error:  # Pillow's readers raise every kind on a broken file
        raise _unreadable(path, error) from None
    named = f"{MODES[mode]}, " if mode in MODES else ""
    raise InputError(f"{str(path)!r} has more than 8 bits a channel ({named}mode {mode}): "
                     "convert the images to 8 bits")  # fmt: skip


def _cut(image: Image.Image, side: int, banner: int, photo: bool) -> Bytes:
    if photo:
        image.draft(None, (2 * side, 2 * side))
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
        # Not ImageOps.exif_transpose: it writes the EXIF anew, and fails at a tag of a wrong type.
        image = image if turn is None else image.transpose(turn)
    plain = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    # Cut, not left out by the box below: the filter reaches beyond that one.
    whole = plain.crop((0, 0, plain.width, plain.height - banner))
    short = min(whole.size)
    left, top = (whole.width - short) / 2, (whole.height - short) / 2
    box = (left, top, left + short, top + short)
    return np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR, box))


def _channels_first(image: Bytes) -> Bytes:
    """(H, W, 3) -> (1, 3, H, W)."""
    return image.transpose(2, 0, 1)[np.newaxis]


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or "it is damaged, or no image: replace or remove it"
    if isinstance(error, IsADirectoryError):
        reason = "it is a folder, name the images in it, e.g. folder/*.jpg"
    if isinstance(error, Image.DecompressionBombError):
        reason = "it has too many pixels"
    return InputError(f"cannot read {str(path)!r}: {reason}")


def all_of(
    read: Callable[[Path], Read], paths: Sequence[Path], advice: str = ADVICE
) -> Iterator[Read]:
    """Every image; after one that is refused the others are looked at, and none is given any more.

    In one thread: Pillow holds the interpreter's lock, two were no faster.

    Args:
        read: One image; raises InputError.
        paths: Of all.
        advice: What is added where sound images were not of the form that is asked for.

    Raises:
        InputError: Some were refused: how many, and why of the first `NAMED`.
    """
    refused: list[InputError] = []
    for path in paths:
        try:
            piece = read(path)
        except InputError as error:
            refused.append(error)
            continue
        if not refused:
            yield piece
    if not refused:
        return
    text = "; ".join(map(str, refused[:NAMED]))
    if len(refused) > 1:
        rest = len(refused) - NAMED
        more = f"; and {rest:,} more" if rest > 0 else ""
        text = f"{len(refused):,} of {len(paths):,} images cannot be used: {text}{more}"
    raise InputError(text + advice * any(isinstance(error, Unfit) for error in refused))
