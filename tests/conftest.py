"""Fixtures of every room: small trees of images, the real CIFAR-100, a cache of our own."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import official_trees
from trainers.catalog import DATASETS


@pytest.fixture(scope="session", autouse=True)
def _own_image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave nothing in the user's cache. AUTOMATE_CACHE, where set, spares decoding again."""
    with pytest.MonkeyPatch.context() as patch:
        if "AUTOMATE_CACHE" not in os.environ:
            patch.setenv("AUTOMATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def cifar100_root() -> Path:
    """The real CIFAR-100 as class folders."""
    root = os.environ.get("CIFAR100_ROOT")
    if not root:
        pytest.skip("CIFAR100_ROOT names no folder with the real CIFAR-100")
    return Path(root).absolute()


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """Makes train/<class>/*.png and test/<class>/*.png of noise, another pixel mean per class."""

    def make(
        name: str = "tree", *, classes: int = 3, train: int = 4, test: int = 2, side: int = 8
    ) -> Path:
        rng = np.random.default_rng(0)
        for split, count in (("train", train), ("test", test)):
            for label in range(classes):
                folder = tmp_path / name / split / f"class{label:03d}"
                folder.mkdir(parents=True)
                for index in range(count):
                    noise = rng.integers(0, 100, (side, side, 3)) + 155 * label // classes
                    Image.fromarray(noise.astype(np.uint8)).save(folder / f"{index:05d}.png")
        return tmp_path / name

    return make


@pytest.fixture
def official_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a small tree in a data set's published layout, which from then on is that small.

    Returns the folder to give as --data-root; images are counted per class.
    """

    def make(name: str, *, classes: int = 3, train: int = 4, test: int = 2) -> Path:
        official_trees.MAKERS[name](tmp_path / "official", classes, train, test)
        sizes = {"classes": classes, "train": classes * train, "test": classes * test}
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], **sizes))
        return tmp_path / "official"

    return make
