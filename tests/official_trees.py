"""Small trees in the published layouts of the named data sets, for tests of every room."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

MODES = ("RGB", "L", "CMYK", "RGB")  # as in the published archives, where few are not RGB


def _image(path: Path, label: int, classes: int, size: tuple[int, int], index: int) -> None:
    """Noise around a level of the class's own, so that there is something to learn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((label, index))
    level = np.asarray(155 * label // max(1, classes - 1))
    noise = rng.integers(0, 100, (size[1], size[0], 3)) + level
    image = Image.fromarray(noise.astype(np.uint8)).convert(MODES[index % len(MODES)])
    image.save(path, format="JPEG", quality=95)


def _sizes(index: int) -> tuple[int, int]:
    return ((300, 280), (260, 330), (128, 90))[index % 3]


def tinyimagenet(root: Path, classes: int, train: int, test: int) -> Path:
    folder = root / "tiny-imagenet-200"
    wnids = [f"n{1000000 + label:08d}" for label in range(classes)]
    annotations = []
    for label, wnid in enumerate(wnids):
        for index in range(train):
            path = folder / "train" / wnid / "images" / f"{wnid}_{index}.JPEG"
            _image(path, label, classes, (64, 64), index)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        for index in range(test):
            name = f"val_{label * test + index}.JPEG"
            _image(folder / "val" / "images" / name, label, classes, (64, 64), 100 + index)
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    _image(folder / "test" / "images" / "test_0.JPEG", 0, classes, (64, 64), 0)
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    words = [f"{wnid}\tthing {label % 2}, other\n" for label, wnid in enumerate(wnids)]
    (folder / "words.txt").write_text("".join(words) + "n99999999\tnot in it\n")
    return folder


def cub200(root: Path, classes: int, train: int, test: int) -> Path:
    folder = root / "CUB_200_2011"
    images, labels, parts, names = [], [], [], []
    number = 0
    for label in range(classes):
        name = f"{label + 1:03d}.Some_bird_{label}"
        names.append(f"{label + 1} {name}\n")
        for index in range(train + test):
            number += 1
            path = f"{name}/Some_bird_{index:04d}.jpg"
            images.append(f"{number} {path}\n")
            labels.append(f"{number} {label + 1}\n")
            parts.append(f"{number} {int(index < train)}\n")
            _image(folder / "images" / path, label, classes, _sizes(index), index)
    for file, lines in (
        ("classes.txt", names),
        ("images.txt", images),
        ("image_class_labels.txt", labels),
        ("train_test_split.txt", parts),
    ):
        (folder / file).write_text("".join(lines))
    return folder


def stanford_dogs(root: Path, classes: int, train: int, test: int) -> Path:
    folder = root / "stanford_dogs"
    for split, count, first in (("train", train, 0), ("test", test, train)):
        paths, labels = [], []
        for label in range(classes):
            breed = f"n{2085620 + label:08d}-Some_dog_{label}"
            for index in range(first, first + count):
                paths.append(f"{breed}/{breed[:9]}_{index}.jpg")
                labels.append(label + 1)
                _image(folder / "Images" / paths[-1], label, classes, _sizes(index), index)
        write_mat(folder / f"{split}_list.mat", paths, labels)
    return folder


def write_mat(path: Path, paths: list[str], labels: list[int]) -> None:
    """A list as MATLAB wrote it: cells of text, a column of numbers."""
    cells = np.empty((len(paths), 1), object)
    cells[:, 0] = paths
    savemat(path, {"file_list": cells, "labels": np.array(labels, np.uint8)[:, np.newaxis]})


def fgvc_aircraft(root: Path, classes: int, train: int, test: int) -> Path:
    folder = root / "fgvc-aircraft-2013b" / "data"
    variants = [f"Some plane {label}-200" for label in range(classes)]
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, variant in enumerate(variants):
        for index in range(train + test):
            name = f"{label * 1000 + index:07d}"
            lists["trainval" if index < train else "test"].append(f"{name} {variant}\n")
            _image(folder / "images" / f"{name}.jpg", label, classes, _sizes(index), index)
    (folder / "variants.txt").write_text("\n".join(variants) + "\n")
    for part, lines in lists.items():
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    return folder.parent


MAKERS = {
    "tinyimagenet": tinyimagenet,
    "cub200": cub200,
    "stanford_dogs": stanford_dogs,
    "fgvc_aircraft": fgvc_aircraft,
}
