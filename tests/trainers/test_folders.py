"""Trees of class folders: what is read, and one clear line for everything that cannot be."""

import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import EpsImagePlugin, Image, ImageFile

from trainers import folders
from trainers.catalog import InputError
from trainers.folders import Decoded, describe_folder, list_tree
from trainers.imagefiles import ADVICE, NAMED


def image(path, size=(8, 8), mode="RGB", **how):
    Image.new(mode, size).save(path, **how)


def refusal(make, *args):
    """The one line of an InputError."""
    with pytest.raises(InputError) as caught:
        make(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_tree_is_read_as_it_is(class_folders):
    root = class_folders(classes=3, train=4, side=8)
    listing = list_tree(root, "train")
    assert listing.counts == (4, 4, 4)
    decoded = listing.decode()
    assert decoded.classes == listing.classes == ("class000", "class001", "class002")
    assert decoded.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert decoded.pixels.shape == (12, 3, 8, 8) and decoded.pixels.dtype == np.uint8
    for place, label in ((0, 0), (7, 1), (11, 2)):
        path = root / "train" / f"class{label:03d}" / f"{place % 4:05d}.png"
        pixels = np.asarray(Image.open(path)).transpose(2, 0, 1)
        assert np.array_equal(decoded.pixels[place], pixels)


@given(arrays(np.uint8, (5, 3, 4, 4)))
def test_mean_and_deviation(pixels):
    decoded = Decoded.of(pixels, np.zeros(5, np.int64), ("a",))
    scaled = pixels / 255
    assert decoded.mean == pytest.approx(scaled.mean(axis=(0, 2, 3)))
    deviation = scaled.std(axis=(0, 2, 3))
    flat = np.ptp(pixels, axis=(0, 2, 3)) == 0
    assert decoded.std == pytest.approx(np.where(flat, 1, deviation))


def test_describe_looks_at_train_alone(class_folders):
    root = class_folders(classes=5, side=16)
    shutil.rmtree(root / "test")
    assert describe_folder(root) == {"classes": 5, "image_size": 16}
    assert describe_folder(str(root)) == {"classes": 5, "image_size": 16}


def test_describe_opens_one_image(class_folders, monkeypatch):
    root, opened = class_folders(), []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **how: opened.append(path) or real(path, **how))
    describe_folder(root)
    assert len(opened) == 1


def test_describe_needs_two_classes(class_folders):
    assert "1 class folder, at least 2" in refusal(describe_folder, class_folders(classes=1))


def test_what_is_no_image_is_passed_over(class_folders):
    root = class_folders()
    for name in ("Thumbs.db", ".DS_Store", "._00000.png", "notes.txt"):
        (root / "train" / "class001" / name).write_bytes(b"no image")
    (root / "train" / "README.md").write_text("no class")
    (root / "train" / ".git").mkdir()
    (root / "train" / "class001" / "folder.png").mkdir()
    assert list_tree(root, "train").counts == (4, 4, 4)


def test_links_are_followed(class_folders, tmp_path):
    root = class_folders()
    elsewhere = tmp_path / "elsewhere"
    (root / "train" / "class002").rename(elsewhere)
    (root / "train" / "class002").symlink_to(elsewhere)
    (root / "train" / "class001" / "linked.png").symlink_to(elsewhere / "00000.png")
    assert list_tree(root, "train").counts == (4, 5, 4)
    assert len(list_tree(root, "train").decode().pixels) == 13


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp", "ppm", "TIFF"])
def test_other_formats(class_folders, suffix):
    root = class_folders()
    image(root / "train" / "class000" / f"x.{suffix}")
    assert len(list_tree(root, "train").decode().labels) == 13


def test_no_such_folder(tmp_path):
    text = refusal(list_tree, tmp_path / "none", "train")
    assert str(tmp_path / "none") in text
    assert "train/<class>/*.jpg" in text and "--dataset digits" in text


def test_a_path_that_no_system_takes(tmp_path):
    assert "no folder" in refusal(list_tree, tmp_path / "a\0b", "train")
    assert "cannot read" in refusal(list_tree, tmp_path / ("x" * 5000), "train")


def test_a_file_where_a_folder_is_needed(class_folders, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(list_tree, tmp_path / "file", "train")
    root = class_folders()
    shutil.rmtree(root / "train")
    (root / "train").write_text("")
    assert "is a file" in refusal(list_tree, root, "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split(class_folders, split):
    root = class_folders()
    shutil.rmtree(root / split)
    assert str(root / split) in refusal(list_tree, root, split)


def test_no_class_folders(tmp_path):
    (tmp_path / "train").mkdir()
    image(tmp_path / "train" / "loose.png")
    assert "no class folders" in refusal(list_tree, tmp_path, "train")


def test_an_empty_class_folder(class_folders):
    root = class_folders()
    (root / "train" / "empty").mkdir()
    (root / "train" / "empty" / ".DS_Store").write_bytes(b"")
    text = refusal(list_tree, root, "train")
    assert "'" + str(root / "train" / "empty") + "'" in text and "no images" in text


def test_a_link_that_leads_nowhere(class_folders):
    root = class_folders()
    (root / "train" / "class000" / "gone.png").symlink_to(root / "nowhere.png")
    assert "gone.png" in refusal(list_tree, root, "train")


def test_a_folder_that_may_not_be_read(class_folders, monkeypatch):
    root, real = class_folders(), os.scandir

    def scandir(path):
        if "class001" in os.fspath(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)
    text = refusal(list_tree, root, "train")
    assert "class001" in text and "Permission denied" in text


@pytest.mark.parametrize("change", ["lacks", "has more"])
def test_classes_of_test_that_are_not_those_of_train(class_folders, change):
    root = class_folders()
    if change == "lacks":
        shutil.rmtree(root / "test" / "class001")
        expected = "test/ lacks 'class001'"
    else:
        shutil.copytree(root / "test" / "class001", root / "test" / "another")
        expected = "only test/ has 'another'"
    assert expected in refusal(list_tree, root, "test")
    assert list_tree(root, "train").counts == (4, 4, 4)


def test_several_images_that_cannot_be_used_are_told_at_once(class_folders):
    root = class_folders()
    (root / "train" / "class000" / "torn.png").write_bytes(b"no image")
    image(root / "train" / "class001" / "grey.png", mode="L")
    pieces = list_tree(root, "train").open().pieces
    assert len([next(pieces) for _ in range(4)]) == 4  # those of class000 before torn.png
    text = refusal(next, pieces)
    assert text.startswith("2 of 14 images cannot be used: ")
    assert "torn.png" in text and "grey.png' is no RGB image" in text and "more" not in text
    for number in range(6):
        (root / "train" / "class002" / f"torn{number}.png").write_bytes(b"")
    text = refusal(lambda: list_tree(root, "train").decode())
    assert text.startswith("8 of 20 images") and text.endswith(f"; and 3 more{ADVICE}")
    assert text.count("cannot read") + text.count("is no RGB") == NAMED


@pytest.mark.parametrize(
    ("mode", "named"),
    [("L", "grey"), ("RGBA", "RGB with alpha"), ("P", "palette"), ("LA", "grey with alpha"),
     ("1", "black and white"), ("I;16", "16-bit grey")],
)  # fmt: skip
def test_images_that_are_not_rgb(class_folders, mode, named):
    root = class_folders()
    path = root / "train" / "class002" / "odd.png"
    image(path, mode=mode)
    text = refusal(list_tree(root, "train").decode)
    assert str(path) in text and f"{named}, mode {mode}" in text and "convert" in text


def test_the_first_image_is_judged_like_any_other(class_folders):
    root = class_folders()
    image(root / "train" / "class000" / "00000.png", mode="L")
    assert "grey" in refusal(describe_folder, root)
    image(root / "train" / "class000" / "00000.png", size=(8, 9))
    assert "8x9 pixels, expected a square" in refusal(describe_folder, root)


def test_images_of_unequal_size(class_folders):
    root = class_folders()
    path = root / "train" / "class001" / "large.png"
    image(path, size=(9, 9))
    text = refusal(list_tree(root, "train").decode)
    assert str(path) in text and "9x9 pixels, expected 8x8" in text


def test_images_of_any_form_are_resized(class_folders):
    root = class_folders()
    for number, (mode, size) in enumerate(
        [("L", (20, 30)), ("RGBA", (9, 9)), ("P", (64, 12)), ("RGB", (8, 8))]
    ):
        image(root / "train" / "class001" / f"odd{number}.png", mode=mode, size=size)
    listing = list_tree(root, "train", resize=10)
    assert listing.side() == 10 and listing.decode().pixels.shape == (16, 3, 10, 10)
    assert describe_folder(root, resize=10) == {"classes": 3, "image_size": 10}
    path = root / "train" / "class002" / "torn.png"
    path.write_bytes(b"")
    text = refusal(list_tree(root, "train", resize=10).decode)
    assert str(path) in text and "damaged" in text


def test_a_tree_in_two_sizes_has_two_fingerprints(class_folders):
    root = class_folders()
    sizes = (None, 8, 10)
    assert len({list_tree(root, "train", size).fingerprint() for size in sizes}) == 3


def test_a_test_split_of_another_name(class_folders):
    root = class_folders()
    (root / "test").rename(root / "val")
    text = refusal(list_tree, root, "test")
    assert text.endswith("; rename val/ to test/ if it is for that")
    (root / "train").rename(root / "Training")
    assert refusal(list_tree, root, "train").endswith(
        "; rename Training/ to train/ if it is for that"
    )
    (root / "Training").rename(root / "mine")
    assert refusal(list_tree, root, "train").endswith("test/<class>/*.jpg (or .png, ...)"), (
        "no guess"
    )


def test_class_folders_without_a_split(class_folders):
    tree = class_folders()
    text = refusal(list_tree, tree / "test", "train")
    assert text.endswith("; if class000/ is a class, put the class folders into train/")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "bits"])
def test_a_damaged_image(class_folders, damage):
    root = class_folders()
    path = root / "train" / "class001" / "00002.png"
    whole = path.read_bytes()
    broken = {
        "cut": whole[: len(whole) // 2],
        "text": b"no image at all",
        "empty": b"",
        "bits": whole[:60] + bytes(255 - value for value in whole[60:]),
    }
    path.write_bytes(broken[damage])
    text = refusal(list_tree(root, "train").decode)
    assert str(path) in text and "damaged" in text


def test_a_file_is_not_taken_for_another_kind(class_folders, monkeypatch):
    """Pillow would open PostScript, and start Ghostscript, whatever the file is called."""
    root = class_folders()
    (root / "train" / "class000" / "00000.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    )
    started = []
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "load", lambda *args: started.append(args))
    assert "no image" in refusal(describe_folder, root)
    assert started == []


def test_a_huge_image_is_refused_by_its_header(class_folders, monkeypatch):
    root = class_folders()
    image(root / "train" / "class000" / "huge.png", size=(4000, 4000))
    loaded, real = [], ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda self: loaded.append(self.size) or real(self)
    )
    assert "4000x4000" in refusal(list_tree(root, "train").decode)
    assert (8, 8) in loaded and (4000, 4000) not in loaded


def test_the_fingerprint_is_of_names_sizes_and_times(class_folders):
    root = class_folders()
    path = root / "train" / "class000" / "00000.png"
    prints = [list_tree(root, "train").fingerprint()]
    assert prints[0] == list_tree(root, "train").fingerprint()
    os.utime(path, ns=(1, 1))
    prints.append(list_tree(root, "train").fingerprint())
    path.rename(path.with_name("other.png"))
    prints.append(list_tree(root, "train").fingerprint())
    shutil.copy(root / "test" / "class000" / "00000.png", root / "train" / "class001" / "new.png")
    prints.append(list_tree(root, "train").fingerprint())
    assert len(set(prints)) == 4
    shutil.rmtree(root / "test")
    assert list_tree(root, "train").fingerprint() == prints[-1]
