"""The cache of decoded images: shared, never half written, never out of date, never needed."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers import cache
from trainers.catalog import InputError
from trainers.folders import list_tree

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("AUTOMATE_CACHE", str(tmp_path / "cache"))
    cache._warn.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def listing(class_folders):
    return list_tree(class_folders(), "train")


def undecodable(listing):
    """The same split, of images that must not be decoded again."""

    def opened():
        raise AssertionError("decoded again")

    return replace(listing, open=opened)


def same(one, other):
    return (
        np.array_equal(one.pixels, other.pixels)
        and np.array_equal(one.labels, other.labels)
        and (one.classes, one.mean, one.std) == (other.classes, other.mean, other.std)
    )


def complete(folder):
    """The states that lie in the cache."""
    return sorted(path.parent for path in folder.rglob("about.json"))


def test_decoded_once_then_mapped(listing):
    first = cache.stored(listing)
    second = cache.stored(undecodable(listing))
    assert same(first, listing.decode()) and same(second, first)
    assert isinstance(first.pixels, np.memmap) and isinstance(second.pixels, np.memmap)


def test_writing_to_the_pixels_changes_no_file(listing):
    pixels = cache.stored(listing).pixels
    before = pixels[0, 0, 0, 0]
    pixels[0, 0, 0, 0] = before + 1
    assert cache.stored(undecodable(listing)).pixels[0, 0, 0, 0] == before


@pytest.mark.parametrize("change", ["touched", "added", "removed"])
def test_a_changed_tree_is_decoded_again(class_folders, folder, change):
    root = class_folders()
    cache.stored(list_tree(root, "train"))
    path = root / "train" / "class000" / "00000.png"
    if change == "touched":
        Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
        os.utime(path, ns=(1, 1))
    elif change == "added":
        shutil.copy(path, path.with_name("more.png"))
    else:
        path.unlink()
    changed = list_tree(root, "train")
    assert same(cache.stored(changed), changed.decode())
    assert len(complete(folder)) == 1, "the older state is gone"


def test_splits_and_trees_lie_apart(class_folders, folder):
    one, two = class_folders("one"), class_folders("two", classes=4)
    listings = [list_tree(root, split) for root in (one, two) for split in ("train", "test")]
    for listing in listings:
        cache.stored(listing)
    assert len(complete(folder)) == 4
    for listing in listings:
        assert same(cache.stored(undecodable(listing)), listing.decode())


def test_a_tree_in_two_sizes_is_decoded_once_in_each(class_folders, folder):
    root = class_folders()
    listings = [list_tree(root, "train", resize=side) for side in (None, 4, 6)]
    for listing in listings:
        cache.stored(listing)
    for listing in listings:
        assert same(cache.stored(undecodable(listing)), listing.decode())


def test_the_cache_of_train_needs_nothing_of_test(class_folders):
    root = class_folders()
    first = cache.stored(list_tree(root, "train"))
    shutil.rmtree(root / "test")
    assert same(cache.stored(undecodable(list_tree(root, "train"))), first)


@pytest.mark.parametrize("file", ["pixels.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "text"])
def test_a_damaged_state_is_made_again(listing, folder, file, damage):
    cache.stored(listing)
    path = complete(folder)[0] / file
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"x"}[damage])
    assert same(cache.stored(listing), listing.decode())
    assert same(cache.stored(undecodable(listing)), listing.decode())


def test_nothing_is_unpickled(listing, folder):
    cache.stored(listing)
    labels = complete(folder)[0] / "labels.npy"
    np.save(labels, np.array([print] * len(listing.labels), dtype=object), allow_pickle=True)
    assert cache.stored(listing).labels.dtype == np.int64


def test_what_a_killed_process_left_is_removed(listing, folder):
    cache.stored(listing)
    split = complete(folder)[0].parent
    shutil.rmtree(complete(folder)[0])
    old, new = split / "writing-1-abandoned", split / "writing-2-at-work"
    for path in (old, new):
        path.mkdir()
        (path / "pixels.npy").write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.stored(listing)
    assert not old.exists() and new.exists()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that knows none."""

    def flock(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(cache.fcntl, "flock", flock)


def test_another_process_was_faster(listing, folder, no_locks):
    def opened():
        cache.stored(listing)
        os.utime(complete(folder)[0] / "about.json", (0, 0))
        return listing.open()

    assert same(cache.stored(replace(listing, open=opened)), listing.decode())
    about = complete(folder)[0] / "about.json"
    assert about.stat().st_mtime == 0, "the first one's stays"
    assert [path.name for path in about.parent.parent.iterdir()] == [about.parent.name]


def test_another_process_was_faster_by_a_hair(listing, folder, no_locks, monkeypatch, caplog):
    """It renames its folder after this one looked, before this one renames."""
    real = Path.rename

    def rename(self, target):
        monkeypatch.setattr(Path, "rename", real)
        cache.stored(listing)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert same(cache.stored(listing), listing.decode())
    assert len(complete(folder)) == 1 and len(list(complete(folder)[0].parent.iterdir())) == 1
    assert caplog.text == ""


def test_processes_at_once(class_folders, folder):
    root = class_folders(train=40)
    program = (
        "import sys, zlib; from pathlib import Path; from trainers import cache, folders\n"
        "read, real = [], folders.exact\n"
        "folders.exact = lambda *args, **more: read.append(args) or real(*args, **more)\n"
        "pixels = cache.stored(folders.list_tree(Path(sys.argv[1]), 'train')).pixels\n"
        "print(zlib.crc32(pixels), len(read))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, root], cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    answers = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert len({checksum for checksum, _ in answers}) == 1
    assert sorted(int(read) for _, read in answers) == [0, 0, 0, 121], "decoded by one alone"
    assert len(complete(folder)) == 1 and len(list(complete(folder)[0].parent.iterdir())) == 1


def test_without_a_place_to_write_it_goes_on_with_one_warning(listing, folder, monkeypatch, caplog):
    folder.write_text("a file")
    for _ in range(3):
        assert same(cache.stored(listing), listing.decode())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "AUTOMATE_CACHE" in caplog.text and "\n" not in caplog.records[0].getMessage()


def test_a_full_disk_leaves_nothing_behind(listing, folder, monkeypatch, caplog):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    assert same(cache.stored(listing), listing.decode())
    assert "No space left" in caplog.text
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_images_that_are_too_many_for_memory_are_not_kept_there(listing, folder, monkeypatch):
    folder.write_text("a file")
    monkeypatch.setattr(cache, "LARGE", 12 * 3 * 8 * 8 - 1)
    with pytest.raises(InputError, match="cannot cache .*AUTOMATE_CACHE"):
        cache.stored(listing)
    monkeypatch.setattr(cache, "LARGE", 12 * 3 * 8 * 8)
    assert same(cache.stored(listing), listing.decode())


def test_images_are_written_as_they_come(listing, folder):
    """One that cannot be read ends it, with those before it written and then taken away."""
    before = []

    def opened():
        whole = listing.open()

        def pieces():
            yield next(whole.pieces)
            before.extend(path.name for path in folder.rglob("pixels.npy"))
            raise InputError("the second image is damaged")

        return replace(whole, pieces=pieces())

    with pytest.raises(InputError, match="second image"):
        cache.stored(replace(listing, open=opened))
    assert before == ["pixels.npy"] and not list(folder.rglob("*.npy"))


def test_what_takes_a_while_is_said(class_folders, monkeypatch, caplog):
    """By the pixels that are made, or by the files that are read for a few of them."""
    pixels = 12 * 3 * 8 * 8
    monkeypatch.setattr(cache, "ANNOUNCED", pixels - 1)
    cache.stored(list_tree(class_folders(), "train"))
    assert "decoding 12 images" in caplog.text
    caplog.clear()
    tree = class_folders("large", side=40)
    files = sum(path.stat().st_size for path in (tree / "train").rglob("*.png"))
    monkeypatch.setattr(cache, "ANNOUNCED", files - 1)
    cache.stored(list_tree(tree, "train", resize=4))
    assert "decoding 12 images" in caplog.text
    caplog.clear()
    cache.stored(list_tree(class_folders("small"), "train", resize=4))
    assert caplog.text == ""


def test_another_form_is_another_state(listing):
    assert replace(listing, form="square 256").fingerprint() != listing.fingerprint()


def test_without_a_home(listing, monkeypatch, caplog):
    monkeypatch.delenv("AUTOMATE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home():
        raise RuntimeError("no home")

    monkeypatch.setattr(cache.Path, "home", home)
    assert same(cache.stored(listing), listing.decode())
    assert "no home" in caplog.text


def test_the_warning_goes_to_stderr(class_folders, folder):
    folder.write_text("a file")
    program = (
        "import sys; from pathlib import Path; from trainers import cache, folders\n"
        "for _ in range(2): cache.stored(folders.list_tree(Path(sys.argv[1]), 'train'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, class_folders()],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "cannot cache" in done.stderr


def test_where_it_is(tmp_path, monkeypatch):
    assert cache.place() == tmp_path / "cache"
    monkeypatch.delenv("AUTOMATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.place() == tmp_path / "xdg" / "mate-automate"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache.place() == tmp_path / ".cache" / "mate-automate"


def test_names_that_are_no_text(class_folders, folder):
    root = class_folders()
    (root / "train" / "class001").rename(os.fsdecode(bytes(root) + b"/train/caf\xe9"))
    listing = list_tree(root, "train")
    first = cache.stored(listing)
    assert cache.stored(undecodable(listing)).classes == first.classes == listing.classes
    assert isinstance(json.loads((complete(folder)[0] / "about.json").read_text()), dict)


def test_errors_pass_through(class_folders, folder):
    root = class_folders()
    (root / "train" / "class000" / "00000.png").write_bytes(b"broken")
    with pytest.raises(InputError):
        cache.stored(list_tree(root, "train"))
    assert complete(folder) == []
