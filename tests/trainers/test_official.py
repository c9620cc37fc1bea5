"""The published layouts: what is read, and one clear line for every tree that is not one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import official_trees
from trainers import official, sources
from trainers.catalog import DATASETS, InputError
from trainers.config import TrialConfig
from trainers.data import load

NAMES = sorted(official.LAYOUTS)


def refusal(make: Callable[[], object]) -> str:
    """The one line of an InputError."""
    with pytest.raises(InputError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def config_of(name: str) -> TrialConfig:
    return TrialConfig(dataset=name, validation=0.25)


def folder_of(name: str, root: Path) -> Path:
    return root / official.LAYOUTS[name].folder


def one_image(name: str, root: Path) -> Path:
    """A training image of the second class."""
    found = official.LAYOUTS[name].read(folder_of(name, root), "train")
    return folder_of(name, root) / next(path for path, label in found.images if label == 1)


def test_every_layout_has_a_maker_and_an_entry():
    assert set(official.LAYOUTS) == set(official_trees.MAKERS)
    assert {*official.LAYOUTS, "digits", "cifar100"} == set(DATASETS)


def test_the_published_counts():
    """Table of the papers that published them."""
    counts = {name: (entry.classes, entry.train, entry.test) for name, entry in DATASETS.items()}
    assert counts["tinyimagenet"] == (200, 100_000, 10_000)
    assert counts["cub200"] == (200, 5_994, 5_794)
    assert counts["stanford_dogs"] == (120, 12_000, 8_580)
    assert counts["fgvc_aircraft"] == (100, 6_667, 3_333)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_tree_is_read(official_tree, name, inside):
    root = official_tree(name, classes=3, train=4, test=2)
    where = folder_of(name, root) if inside else root
    sources.check(config_of(name), where)
    stored = DATASETS[name].stored or DATASETS[name].image_size
    for split, count in (("train", 4), ("test", 2)):
        decoded = sources.decoded(config_of(name), split, where)
        assert decoded.pixels.shape == (3 * count, 3, stored, stored)
        assert isinstance(decoded.pixels, np.memmap)
        assert np.bincount(decoded.labels).tolist() == [count] * 3
        levels = [decoded.pixels[decoded.labels == label].mean() for label in range(3)]
        assert levels == sorted(levels) and levels[2] - levels[0] > 100, "labels go with images"


def test_class_names(official_tree):
    names = {}
    for name in NAMES:
        root = official_tree(name)
        names[name] = sources.decoded(config_of(name), "train", root).classes
    assert names["tinyimagenet"] == ("thing 0 (n01000000)", "thing 1", "thing 0 (n01000002)")
    assert names["cub200"][1] == "Some bird 1"
    assert names["stanford_dogs"][1] == "Some dog 1"
    assert names["fgvc_aircraft"][1] == "Some plane 1-200"


@pytest.mark.parametrize("name", NAMES)
def test_both_splits_have_the_same_classes(official_tree, name):
    root = official_tree(name)
    train, test = (official.listing(name, root, split) for split in ("train", "test"))
    assert train.classes == test.classes and len(set(train.classes)) == 3
    names = {file[0] for file in train.files if file[0].lower().endswith(("jpg", "jpeg"))}
    assert len(names) == 12 and not names & {file[0] for file in test.files}


def test_tiny_imagenet_without_words(official_tree):
    root = official_tree("tinyimagenet")
    (folder_of("tinyimagenet", root) / "words.txt").unlink()
    assert official.listing("tinyimagenet", root, "test").classes[0] == "n01000000"


def test_dogs_lists_in_a_folder_of_their_own(official_tree):
    root = official_tree("stanford_dogs")
    folder = folder_of("stanford_dogs", root)
    (folder / "lists").mkdir()
    for split in ("train", "test"):
        (folder / f"{split}_list.mat").rename(folder / "lists" / f"{split}_list.mat")
    assert len(load(config_of("stanford_dogs"), "final", root).score) == 6


def test_a_config_of_another_size_is_told_the_sets_own(official_tree):
    """Which images are cut to, not that they are stored at, nor the config's."""
    root = official_tree("cub200", classes=3, train=4, test=2)
    config = config_of("cub200").with_(image_size=32, backbone="vgg16")
    text = refusal(lambda: sources.check(config, root))
    assert "has images of 224x224 pixels, the config says image_size = 32" in text


def test_the_banner_of_the_aircraft_is_cut_off():
    assert official.LAYOUTS["fgvc_aircraft"].banner == 20


# Training


@pytest.mark.parametrize("name", NAMES)
def test_batches_have_the_side_of_the_entry(official_tree, name):
    from trainers.data import batches

    root = official_tree(name)
    data = load(config_of(name), "search", root)
    assert (len(data.fit), len(data.score)) == (9, 3)
    side = DATASETS[name].image_size
    for augmentation in ("none", "crop_flip"):
        pixels, labels = next(batches(data.fit, 4, augmentation=augmentation))
        assert pixels.shape == (4, 3, side, side) and len(labels) == 4


# What is wrong with a tree


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_there(tmp_path, name):
    text = refusal(lambda: sources.check(config_of(name), tmp_path / "none"))
    assert str(tmp_path / "none") in text and official.LAYOUTS[name].folder in text
    assert f"datasets fetch {name}" in text and "`--dataset digits` needs nothing" in text
    (tmp_path / "empty").mkdir()
    assert "is not there" in refusal(lambda: sources.check(config_of(name), tmp_path / "empty"))


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


LISTS = {
    "tinyimagenet": ("train",),
    "cub200": ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt"),
    "stanford_dogs": ("train_list.mat",),
    "fgvc_aircraft": ("data/variants.txt", "data/images_variant_trainval.txt"),
}


@pytest.mark.parametrize(("name", "file"), [(n, file) for n in NAMES for file in LISTS[n]])
@pytest.mark.parametrize("damage", ["gone", "bytes"])
def test_a_list_that_cannot_be_read(official_tree, name, file, damage):
    root = official_tree(name)
    path = folder_of(name, root) / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if damage == "bytes":
        path.write_bytes(b"\xff\xfe\x00 no list")
    text = refusal(lambda: sources.check(config_of(name), root))
    assert file in text and f"fetch {name}" in text
    assert text == refusal(lambda: load(config_of(name), "search", root))


@pytest.mark.parametrize("name", NAMES)
def test_a_listed_image_that_is_missing(official_tree, name):
    root = official_tree(name)
    path = one_image(name, root)
    path.unlink()
    text = refusal(lambda: sources.check(config_of(name), root))
    if name == "tinyimagenet":  # the folder is the list
        assert "has 11 train images, not 12" in text
    else:
        assert f"cannot read {str(path)!r}" in text
    assert f"fetch {name}" in text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("field", "expected"), [("train", "12 train images, not 13"), ("classes", "3 classes, not 4")]
)
def test_wrong_counts(official_tree, monkeypatch, name, field, expected):
    from dataclasses import replace

    root, entry = official_tree(name), DATASETS[name]
    changed = replace(entry, **{field: getattr(entry, field) + 1})
    monkeypatch.setitem(DATASETS, name, changed)
    assert expected in refusal(lambda: sources.check(config_of(name), root))


def test_counts_are_checked_of_the_test_split_too(official_tree):
    root = official_tree("cub200")
    edit(folder_of("cub200", root) / "train_test_split.txt", "5 0", "5 1")
    assert "13 train images, not 12" in refusal(
        lambda: official.listing("cub200", root, "train")
    )  # fmt: skip
    assert "5 test images, not 6" in refusal(lambda: official.listing("cub200", root, "test"))


def test_unknown_classes(official_tree):
    root = official_tree("cub200")
    edit(folder_of("cub200", root) / "image_class_labels.txt", "1 1\n", "1 9\n")
    assert "unknown class 9" in refusal(lambda: official.listing("cub200", root, "train"))
    root = official_tree("fgvc_aircraft")
    path = folder_of("fgvc_aircraft", root) / "data" / "images_variant_trainval.txt"
    edit(path, "Some plane 1-200", "A kite")
    assert "unknown class 'A kite'" in refusal(
        lambda: official.listing("fgvc_aircraft", root, "train")
    )
    root = official_tree("tinyimagenet")
    edit(folder_of("tinyimagenet", root) / "val" / "val_annotations.txt", "n01000001", "n7")
    assert "unknown class 'n7'" in refusal(lambda: official.listing("tinyimagenet", root, "test"))
    root = official_tree("stanford_dogs")
    path = folder_of("stanford_dogs", root) / "train_list.mat"
    found = official.LAYOUTS["stanford_dogs"].read(path.parent, "train")
    paths = [image.removeprefix("Images/") for image, _ in found.images]
    official_trees.write_mat(path, paths, [9 if label == 2 else label + 1
                                           for _, label in found.images])  # fmt: skip
    assert "unknown class 9" in refusal(lambda: official.listing("stanford_dogs", root, "train"))


@pytest.mark.parametrize("evil", ["../../secret.jpg", "/etc/hostname.jpg", "a\\..\\b.jpg"])
@pytest.mark.parametrize("name", ["cub200", "stanford_dogs", "fgvc_aircraft"])
def test_a_list_that_leaves_the_folder(official_tree, name, evil):
    root = official_tree(name)
    folder = folder_of(name, root)
    if name == "cub200":
        edit(folder / "images.txt", "001.Some_bird_0/Some_bird_0000.jpg", f"x/../../{evil}")
    elif name == "stanford_dogs":
        found = official.LAYOUTS[name].read(folder, "train")
        paths = [image.removeprefix("Images/") for image, _ in found.images]
        paths[0] = f"{paths[0].split('/')[0]}/../../{evil}"
        official_trees.write_mat(
            folder / "train_list.mat", paths, [label + 1 for _, label in found.images]
        )
    else:
        edit(folder / "data" / "images_variant_trainval.txt", "0000000", f"../../{evil}"[:-4])
    text = refusal(lambda: sources.check(config_of(name), root))
    assert "is no file below that folder" in text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_image(official_tree, name, damage):
    root = official_tree(name)
    path = one_image(name, root)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no image", "empty": b""}[damage])
    sources.check(config_of(name), root)  # looks at the first image alone
    text = refusal(lambda: load(config_of(name), "search", root))
    assert f"cannot read {str(path)!r}" in text


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("images.txt", "2 001.", "2\n3 001.", "needs 2 columns, got '2'"),
        ("image_class_labels.txt", "1 1\n", "1 one\n", "expected a whole number, got 'one'"),
        ("train_test_split.txt", "3 1\n", "", "lacks image 3 of images.txt"),
    ],
)
def test_lists_of_another_form(official_tree, file, old, new, expected):
    root = official_tree("cub200")
    edit(folder_of("cub200", root) / file, old, new)
    assert expected in refusal(lambda: sources.check(config_of("cub200"), root))


def test_counting_opens_and_caches_nothing(official_tree, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOMATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Image, "open", lambda *args, **how: pytest.fail("an image was opened"))
    for name in NAMES:
        root = official_tree(name)
        assert sources.epoch_images(config_of(name), root) == (9, 3)
        assert sources.epoch_images(config_of(name).with_(limit_train=5), root)[0] == 5
    assert not (tmp_path / "cache").exists()
