"""Data sets by name and by path, and what keeps a search away from the test images."""

import copyreg
import functools
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR100

from trainers import official, sources
from trainers.catalog import DATASETS, InputError
from trainers.config import TrialConfig
from trainers.data import load
from trainers.folders import describe_folder

ROOT = Path(__file__).parents[2]
CIFAR = TrialConfig(dataset="cifar100")


class Pickler2009(pickle.Pickler):
    """Writes dtypes with integers for flags, as NumPy 1.x did.

    These two make every NumPy from 2.4 warn, the real file's (0, 1) only 2.4.0 to 2.4.4.
    """

    def reducer_override(self, value):
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 0, 0), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Files of the published form, with 4 training and 2 test images a class, and their MD5s."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    names = [f"name{label:03d}" for label in range(100)]
    contents = {"meta": {"fine_label_names": names}}
    for split, count in (("train", 400), ("test", 200)):
        pixels = rng.integers(0, 256, (count, 3072)).astype(np.uint8)
        labels = (np.arange(count)[::-1] % 100).tolist()
        contents[split] = {"data": pixels, "fine_labels": labels}
    for name, content in contents.items():
        stream = io.BytesIO()
        Pickler2009(stream, protocol=2).dump(content)
        (folder / name).write_bytes(stream.getvalue())
        digest = hashlib.md5(stream.getvalue()).hexdigest()
        if name == "meta":
            monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": digest})
        else:
            monkeypatch.setattr(CIFAR100, f"{name}_list", [[name, digest]])
    return root, contents


def refusal(*args, make=sources.check):
    """The one line of an InputError."""
    with pytest.raises(InputError) as caught:
        make(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def config_of(root, **changes):
    return TrialConfig(
        dataset=str(root), **{"classes": 3, "image_size": 8, "validation": 0.25, **changes}
    )


# Digits


def test_digits_are_as_published():
    from sklearn.datasets import load_digits

    train = sources.decoded(TrialConfig(dataset="digits"), "train")
    test = sources.decoded(TrialConfig(dataset="digits"), "test")
    assert train.pixels.shape == (897, 1, 8, 8) and test.pixels.shape == (900, 1, 8, 8)
    assert train.classes == tuple("0123456789")
    pixels = np.concatenate([train.pixels, test.pixels])[:, 0] * (16 / 255)
    assert np.abs(pixels - np.rint(pixels)).max() <= 0.04
    labels = np.concatenate([train.labels, test.labels])
    read = {(label, image.tobytes()) for label, image in zip(labels, np.rint(pixels), strict=True)}
    published = load_digits()
    given = zip(published.target, published.images, strict=True)
    assert read == {(label, image.tobytes()) for label, image in given}
    entry = DATASETS["digits"]
    assert entry.mean == pytest.approx((pixels.mean() / 16,), abs=1e-3)
    assert entry.std == pytest.approx((pixels.std() / 16,), abs=1e-3)


def test_digits_need_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOMATE_DATA", str(tmp_path / "none"))
    sources.check(TrialConfig(dataset="digits"))


def test_digits_that_the_config_has_otherwise():
    config = TrialConfig(dataset="digits", classes=5)
    for make in (sources.check, functools.partial(sources.decoded, split="train")):
        assert "'digits' has 10 classes, the config says classes = 5" in refusal(config, make=make)
    assert "there are 180" in refusal(TrialConfig(dataset="digits", limit_train=200))


# CIFAR-100


@pytest.mark.parametrize("where", ["argument", "AUTOMATE_DATA", "./data"])
def test_where_it_is_looked_for(tmp_path, monkeypatch, where):
    monkeypatch.delenv("AUTOMATE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    root, expected = None, tmp_path / "data"
    if where == "argument":
        root = expected = tmp_path / "mine"
    if where != "./data":
        monkeypatch.setenv("AUTOMATE_DATA", str(tmp_path / "theirs"))
        expected = root or tmp_path / "theirs"
    text = refusal(CIFAR, root)
    assert repr(str(expected)) in text
    assert DATASETS["cifar100"].get in text and "`--dataset digits` needs nothing" in text
    assert text == refusal(CIFAR, "search", root, make=load)


def test_a_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert repr(str(tmp_path / "x")) in refusal(CIFAR, "~/x")


def test_a_file_as_root(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(CIFAR, tmp_path / "file")


def test_class_folders_as_cifar100(class_folders):
    root = class_folders(classes=100, train=2, test=1, side=32)
    sources.check(CIFAR, root)
    decoded = sources.decoded(CIFAR, "test", root)
    assert decoded.pixels.shape == (100, 3, 32, 32)


def test_class_folders_that_are_not_cifar100s(class_folders):
    few = class_folders("few", classes=20, side=32)
    text = refusal(CIFAR, few)
    assert "20 class folders, cifar100 has 100; for other classes use --dataset PATH" in text
    assert text == refusal(CIFAR, "search", few, make=load)
    large = class_folders("large", classes=100, side=40, train=2)
    text = refusal(CIFAR, large)
    assert "40x40 pixels, cifar100 has 32; for other sizes use --dataset PATH" in text
    assert text == refusal(CIFAR, "search", large, make=load)


def test_a_config_that_is_not_cifar100s(class_folders):
    root = class_folders(classes=100, train=2, test=1, side=32)
    assert "the config says classes = 20" in refusal(CIFAR.with_(classes=20), root)


@pytest.mark.parametrize("inside", [False, True])
def test_the_published_files(published, inside):
    root, contents = published
    root = root / "cifar-100-python" if inside else root
    sources.check(CIFAR, root)
    for split in ("train", "test"):
        decoded, content = sources.decoded(CIFAR, split, root), contents[split]
        assert np.array_equal(decoded.pixels.reshape(-1, 3072), content["data"])
        assert decoded.labels.tolist() == content["fine_labels"]
        assert decoded.classes == tuple(contents["meta"]["fine_label_names"])


@pytest.mark.parametrize("name", ["train", "meta"])
def test_published_files_that_are_damaged(published, name):
    root, _ = published
    path = root / "cifar-100-python" / name
    path.write_bytes(path.read_bytes()[:-1])
    text = refusal(CIFAR, "search", root, make=load)
    assert "damaged" in text and "fetch cifar100" in text
    path.unlink()
    text = refusal(CIFAR, root)
    assert f"cannot read {str(path)!r}" in text and "fetch cifar100" in text
    assert text == refusal(CIFAR, "search", root, make=load)


def test_a_foreign_pickle_is_not_opened(published):
    """A file is unpickled only if its MD5 is the published one."""
    root, _ = published
    (root / "cifar-100-python" / "train").write_bytes(
        pickle.dumps(copyreg.__newobj__)  # stands for any program
        + b"cbuiltins\nexit\n(tR."
    )
    assert "damaged" in refusal(CIFAR, "search", root, make=load)


# Other trees of class folders, by path


def test_a_tree_by_path(class_folders, monkeypatch):
    root = class_folders()
    sources.check(config_of(root))
    assert len(sources.decoded(config_of(root), "train").labels) == 12
    monkeypatch.chdir(root.parent)
    sources.check(config_of(f"./{root.name}"))
    config = TrialConfig(dataset=str(root), **describe_folder(root))
    sources.check(config)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"classes": 4}, "has 3 classes, the config says classes = 4"),
        ({"image_size": 8, "backbone": "cnn4"}, None),
        ({"image_size": 32, "backbone": "vgg16"}, "8x8 pixels, the config says image_size = 32"),
        ({"limit_train": 10}, "limit_train is 10, there are 9 training images"),
        ({"limit_train": 2}, "at least one image of each of the 3 classes"),
    ],
)
def test_a_config_that_does_not_fit_a_tree(class_folders, changes, expected):
    config = config_of(class_folders(), **changes)
    if expected is None:
        return sources.check(config)
    text = refusal(config)
    assert expected in text
    assert text == refusal(config, make=load)


def test_a_class_of_one_image(class_folders):
    root = class_folders()
    for index in range(1, 4):
        (root / "train" / "class001" / f"{index:05d}.png").unlink()
    config = config_of(root)
    assert "class 'class001' has 1 training image" in refusal(config)
    assert "class 'class001' has 1 training image" in refusal(config, make=load)


def test_a_tree_that_is_not_there(tmp_path):
    text = refusal(config_of(tmp_path / "none"))
    assert str(tmp_path / "none") in text and "`--dataset digits` needs no files" in text


def test_the_test_split_is_looked_at_where_it_is_asked_for(class_folders):
    root = class_folders()
    config = config_of(root)
    sources.check(config, test=True)
    for path in (root / "test").rglob("*.png"):
        Image.new("RGB", (9, 9)).save(path)
    sources.check(config)
    with pytest.raises(InputError, match="9x9 pixels, the config says image_size = 8"):
        sources.check(config, test=True)
    shutil.rmtree(root / "test")
    sources.check(config)
    with pytest.raises(InputError, match="no folder"):
        sources.check(config, test=True)


def test_a_resize_is_advised_where_it_can_be_given(class_folders):
    """Not of a named data set, which has a size of its own."""
    root = class_folders("hundred", classes=100, train=2, side=32)
    Image.new("L", (32, 32)).save(root / "train" / "class000" / "00000.png")
    own = config_of(root, classes=100, image_size=32, backbone="vgg16", validation=0.5)
    assert "--resize" in refusal(own)
    for make in (lambda: sources.check(CIFAR, root), lambda: load(CIFAR, "search", root)):
        text = refusal(make=make)
        assert "is no RGB image" in text and "--resize" not in text


def test_test_images_of_another_size(class_folders):
    root = class_folders()
    for path in (root / "test").rglob("*.png"):
        Image.new("RGB", (9, 9)).save(path)
    assert len(load(config_of(root)).fit) == 9
    assert "9x9 pixels, the config says image_size = 8" in refusal(
        config_of(root), "final", make=load
    )


# The test split is not opened by a search


class Watch:
    """Notes every event of Python's audit that names a path of test images."""

    def __init__(self):
        self.names, self.seen = None, []
        sys.addaudithook(self)

    def __call__(self, event, args):
        if self.names is None:
            return
        for arg in args:
            if isinstance(arg, str | bytes | os.PathLike):
                text = os.fsdecode(arg)
                if any(name in text for name in self.names):
                    self.seen.append((event, text))

    def of(self, *names):
        self.names, self.seen = names, []
        return self

    def __enter__(self):
        return self.seen

    def __exit__(self, *error):
        self.names = None


watch = Watch()  # a hook cannot be removed again: one for all tests


@pytest.fixture(params=["class folders", "published files", *official.LAYOUTS])
def data_set(request, class_folders, tmp_path, monkeypatch):
    """(config, root, the places of what is the test split's alone)"""
    monkeypatch.setenv("AUTOMATE_CACHE", str(tmp_path / "cache"))
    if request.param == "class folders":
        root = class_folders()
        return config_of(root), None, [root / "test"]
    if request.param == "published files":
        root, _ = request.getfixturevalue("published")
        return CIFAR.with_(validation=0.25), root, [root / "cifar-100-python" / "test"]
    root = request.getfixturevalue("official_tree")(request.param)
    train, test = (official.listing(request.param, root, split) for split in ("train", "test"))
    shared = {name for name, _, _ in train.files}
    places = [root / test.folder.name / name for name, _, _ in test.files if name not in shared]
    return TrialConfig(dataset=request.param, validation=0.25), root, places


def everything_a_search_does(config, root):
    sources.check(config, root)
    if root is None:
        describe_folder(config.dataset)
    return load(config, "search", root)


def test_a_search_never_opens_the_test_split(data_set, tmp_path):
    config, root, test = data_set
    names = [str(place) for place in test] + ["-test/", "-test."]
    for _ in ("decoded", "from the cache"):
        with watch.of(*names) as seen:
            data = everything_a_search_does(config, root)
        assert seen == [] and data.split == "validation"
    with watch.of(*names) as seen:
        load(config, "final", root)
    opened = {name for _, name in seen}
    for place in test:
        assert any(name.startswith(str(place)) for name in opened), "the watch sees what is opened"
    assert any(name.startswith(str(tmp_path / "cache")) for name in opened)
    with watch.of(*names) as seen:  # the test split's cache is there now
        everything_a_search_does(config, root)
    assert seen == []


def test_a_search_does_without_the_test_split(data_set):
    config, root, test = data_set
    with_it = load(config, "search", root)
    for place in test:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.rmtree(os.environ["AUTOMATE_CACHE"])
    without = everything_a_search_does(config, root)
    assert without.fit.pixels.equal(with_it.fit.pixels)
    assert without.score.labels.equal(with_it.score.labels)
    assert any(str(place) in refusal(config, "final", root, make=load) for place in test)


# Without torch


def test_describing_and_checking_load_no_torch(class_folders):
    program = (
        "import sys; from trainers.config import TrialConfig\n"
        "from trainers import fetching, sources\n"
        "from trainers.folders import describe_folder\n"
        "sources.check(TrialConfig(dataset=sys.argv[1], **describe_folder(sys.argv[1])))\n"
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, class_folders()], cwd=ROOT, check=True)
