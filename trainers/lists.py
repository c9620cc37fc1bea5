"""What the lists of a published data set say: a function a layout, and no image is looked at."""

from dataclasses import dataclass
from pathlib import Path

from trainers.catalog import InputError
from trainers.folders import Split, entries


@dataclass(frozen=True)
class Found:
    """What the lists of a data set say of one split.

    Attributes:
        classes: Names of the K classes.
        images: (path below the data set's folder, label 0..K-1) of each image.
        lists: The lists that were read, below the data set's folder.
    """

    classes: tuple[str, ...]
    images: list[tuple[str, int]]
    lists: tuple[str, ...]


def _lines(folder: Path, name: str, columns: int) -> list[list[str]]:
    """The lines of a list, each in so many columns; the last one may hold spaces."""
    path = folder / name
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise InputError(f"cannot read {str(path)!r} ({reason})") from None
    split = [line.split(None, columns - 1) for line in lines if line.strip()]
    for number, parts in enumerate(split, 1):
        if len(parts) != columns:
            raise InputError(
                f"{str(path)!r}: entry {number} needs {columns} columns, got {' '.join(parts)!r}"
            )
    return [[part.strip() for part in parts] for parts in split]


def _whole(folder: Path, name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{str(folder / name)!r}: expected a whole number, got {text!r}")
    return int(text)


def tiny_imagenet(folder: Path, split: Split) -> Found:
    """Classes are the folders of train/; their names come from words.txt where it is."""
    wnids = [entry.name for entry in entries(folder / "train") if entry.is_dir()]
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    if split == "train":
        images = [
            (f"train/{wnid}/images/{image.name}", label)
            for wnid, label in label_of.items()
            for image in entries(folder / "train" / wnid / "images")
            if image.name.lower().endswith(".jpeg")
        ]
        return Found(_words(folder, wnids), images, ())
    annotations, images = "val/val_annotations.txt", []
    for name, wnid, *_ in _lines(folder, annotations, 6):
        if wnid not in label_of:
            raise InputError(f"{str(folder / annotations)!r}: {name!r} has the unknown class "
                             f"{wnid!r}, which train/ has not")  # fmt: skip
        images.append((f"val/images/{name}", label_of[wnid]))
    return Found(_words(folder, wnids), images, (annotations,))


def _words(folder: Path, wnids: list[str]) -> tuple[str, ...]:
    """What the classes are called, e.g. "goldfish"; with the wnid where that is not unique."""
    if not (folder / "words.txt").exists():
        return tuple(wnids)
    words = {wnid: names.split(",")[0] for wnid, names in _lines(folder, "words.txt", 2)}
    names = [words.get(wnid, wnid) for wnid in wnids]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )


def cub(folder: Path, split: Split) -> Found:
    """Images, classes and the split are three lists by the image's number; 1 is training."""
    lists = ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt")
    classes, images, labels, parts = (
        {number: value for number, value in _lines(folder, name, 2)} for name in lists
    )
    for name, known in zip(lists[2:], (labels, parts), strict=True):
        if absent := sorted(set(images) - set(known)):
            raise InputError(f"{str(folder / name)!r} lacks image {absent[0]} of images.txt")
    wanted = "1" if split == "train" else "0"
    found = [
        (f"images/{path}", _whole(folder, lists[2], labels[image]) - 1)
        for image, path in images.items()
        if parts[image] == wanted
    ]
    return Found(tuple(_readable(name) for name in classes.values()), found, lists)


def _readable(name: str) -> str:
    """`001.Black_footed_Albatross` and `n02085620-Chihuahua` as they are spoken of."""
    for separator in (".", "-"):
        first, found, rest = name.partition(separator)
        if found and first.strip("n").isdecimal():
            return rest.replace("_", " ")
    return name.replace("_", " ")


def dogs(folder: Path, split: Split) -> Found:
    """A .mat file a split, in the folder itself or in lists/."""
    from scipy.io import loadmat

    name = f"{split}_list.mat"
    if not (folder / name).exists() and (folder / "lists" / name).exists():
        name = f"lists/{name}"
    try:
        content = loadmat(folder / name, variable_names=("file_list", "labels"))
        paths = [str(row[0][0]) for row in content["file_list"]]
        labels = [int(label) - 1 for label in content["labels"].ravel()]
        images = [(f"Images/{path}", label) for path, label in zip(paths, labels, strict=True)]
        breeds = {label: path.split("/")[0] for path, label in zip(paths, labels, strict=True)}
    except Exception as error:  # scipy's reader raises every kind on a broken file
        reason = getattr(error, "strerror", None) or "it is damaged, or no such list"
        raise InputError(f"cannot read {str(folder / name)!r} ({reason})") from None
    return Found(tuple(_readable(breeds[label]) for label in sorted(breeds)), images, (name,))


def aircraft(folder: Path, split: Split) -> Found:
    """Variants; trained on trainval and tested on test, the usual protocol."""
    part = "trainval" if split == "train" else "test"
    lists = ("data/variants.txt", f"data/images_variant_{part}.txt")
    variants = [" ".join(line) for line in _lines(folder, lists[0], 1)]
    label_of = {variant: label for label, variant in enumerate(variants)}
    images = []
    for image, variant in _lines(folder, lists[1], 2):
        if variant not in label_of:
            raise InputError(f"{str(folder / lists[1])!r}: {image!r} has the unknown class "
                             f"{variant!r}, which variants.txt has not")  # fmt: skip
        images.append((f"data/images/{image}.jpg", label_of[variant]))
    return Found(tuple(variants), images, lists)
