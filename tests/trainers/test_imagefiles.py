"""One image file as pixels: what a square of it is, and what is refused."""

import struct

import numpy as np
import pytest
from PIL import Image

from trainers.catalog import InputError
from trainers.imagefiles import ADVICE, ORIENTATION, all_of, exact, square


def test_the_middle_square_resized(tmp_path):
    """A picture of three parts: the outer ones lie outside the middle square."""
    pixels = np.zeros((90, 150, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:120], pixels[:, 120:] = 255, 90, 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "high.png")
    for name in ("wide.png", "high.png"):
        found = square(tmp_path / name, side=32)
        assert found.shape == (1, 3, 32, 32) and (found[..., 1:-1, 1:-1] == 90).all()


@pytest.mark.parametrize("size", [(96, 64), (64, 128), (64, 64), (16, 20)])
def test_it_is_what_resize_and_centre_crop_give(tmp_path, size):
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    image.save(tmp_path / "image.png")
    expected = v2.Compose([v2.Resize(32), v2.CenterCrop(32)])(image)
    found = square(tmp_path / "image.png", side=32)[0].transpose(1, 2, 0)
    assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_the_banner_is_cut_off(tmp_path):
    pixels = np.full((120, 100, 3), 40, np.uint8)
    pixels[100:] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert (square(tmp_path / "image.png", side=64, banner=20) == 40).all()


def test_resizing_averages(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    found = square(tmp_path / "image.png", side=32)[0]
    expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(expected))
    assert found.std() < 0.7 * pixels.std(), "every other pixel alone would vary as before"


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / f"image.{'jpg' if mode == 'CMYK' else 'png'}"
    image = Image.new("RGB", (40, 40), (255, 255, 255)).convert(mode)
    image.save(path, **({"transparency": bytes([9, 200])} if mode == "P" else {}))
    assert (square(path, side=8) > 250).all()


def picture(width, height, seed=0):
    """Smooth colours that no two places share."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_photo_is_turned_upright(tmp_path, turned):
    """The eight ways of EXIF, each undone: stored as the camera would, seen as it was."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = picture(90, 60)
    held = upright.transpose(undo[turned]) if turned in undo else upright
    exif = Image.Exif()
    exif[ORIENTATION] = turned
    held.save(tmp_path / "held.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    expected = square(tmp_path / "upright.png", 32)
    assert np.array_equal(square(tmp_path / "held.png", 32, photo=True), expected)
    as_stored = np.array_equal(square(tmp_path / "held.png", 32), expected)
    assert as_stored == (turned == 1), "published sets are taken as they are stored"


@pytest.mark.parametrize("size", [(640, 480), (300, 1000), (70, 64), (40, 30)])
def test_a_jpeg_decoded_at_a_smaller_scale_is_nearly_the_same(tmp_path, size):
    picture(*size).save(tmp_path / "photo.jpg", quality=90)
    found, whole = (square(tmp_path / "photo.jpg", 32, photo=p).astype(int) for p in (True, False))
    assert np.abs(found - whole).max() <= 4
    # A half of it would be less than twice the side.
    assert np.array_equal(found, whole) == (min(size) < 4 * 32)


@pytest.mark.parametrize("tag", [(0x0128, 1, 2), (0x0100, 2, 0x3233), (0x0132, 5, 8)])
def test_exif_of_wrong_types_turns_a_photo_all_the_same(tmp_path, tag):
    """A resolution's unit as a byte, a width as text, a date as a fraction: cameras do so."""
    number, kind, value = tag
    entries = sorted([(ORIENTATION, 3, 6), (number, kind, value)])
    ifd = b"".join(struct.pack("<HHII", one, form, 1, is_) for one, form, is_ in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + ifd + b"\0" * 4
    picture(90, 60).save(tmp_path / "held.png", exif=exif)
    plain = Image.Exif()
    plain[ORIENTATION] = 6
    picture(90, 60).save(tmp_path / "plain.png", exif=plain)
    found, expected = (square(tmp_path / f"{n}.png", 32, photo=True) for n in ("held", "plain"))
    assert np.array_equal(found, expected)


def test_more_than_eight_bits_are_refused(tmp_path):
    Image.new("I;16", (40, 40), 700).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="16-bit grey, mode I;16.: convert the images to 8 bits"):
        square(tmp_path / "deep.png", 8)


def test_too_many_pixels(tmp_path, monkeypatch):
    picture(40, 30).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert square(tmp_path / "image.png", 8).shape == (1, 3, 8, 8)  # beyond it, not twice
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(InputError, match="image.png': it has too many pixels"):
        square(tmp_path / "image.png", 8)


def test_a_resize_is_advised_where_it_would_help(tmp_path):
    """Once, whatever the number of images; not where nothing but damage was found."""
    picture(40, 30).save(tmp_path / "wide.png")
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    (tmp_path / "torn.png").write_bytes(b"")
    wide, grey, torn = (tmp_path / f"{name}.png" for name in ("wide", "grey", "torn"))

    def refusal(*paths):
        with pytest.raises(InputError) as caught:
            list(all_of(lambda path: exact(path, 8), paths))
        return str(caught.value)

    assert refusal(wide).endswith(f"40x30 pixels, expected 8x8 like the images before it{ADVICE}")
    assert refusal(wide, torn, grey).count(ADVICE) == 1
    assert ADVICE not in refusal(torn)
