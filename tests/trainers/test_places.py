"""What a record names is found where it lies now."""

from pathlib import Path

import pytest

from trainers.catalog import InputError
from trainers.own import file_digest
from trainers.places import back, found, noted, renamed


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A project with a network, a folder of images and a record's folder."""
    folder = tmp_path / "before"
    for part in ("nets", "images", "runs/s"):
        (folder / part).mkdir(parents=True)
    (folder / "nets" / "net.py").write_text("EXITS = 2\n")
    return folder


def test_absolute_paths_are_noted_and_nothing_else():
    names = ["/p/nets/net.py", "/p/images", "nets/net.py", "vgg16", "digits", None]
    assert noted(names, Path("/p/runs/s")) == {
        "/p/nets/net.py": "../../nets/net.py",
        "/p/images": "../../images",
    }


def test_moved_copied_and_edited(before):
    net, images = str(before / "nets" / "net.py"), str(before / "images")
    places, digests = noted([net, images], before / "runs" / "s"), {net: file_digest(net)}
    assert found(places, before / "runs" / "s", digests) == {}, "as they were"

    copy = before.with_name("copy")
    (copy / "nets").mkdir(parents=True)
    (copy / "images").mkdir()
    ours = copy / "nets" / "net.py"
    ours.write_text("EXITS = 2\n")
    now = found(places, copy / "runs" / "s", digests)
    assert now == {net: str(ours), images: str(copy / "images")}

    ours.write_text("EXITS = 3\n")
    assert found(places, copy / "runs" / "s", digests) == {images: str(copy / "images")}
    assert found(places, copy / "runs" / "s")[net] == str(ours), "nobody knows which it was"
    Path(net).write_text("EXITS = 4\n")
    assert found(places, copy / "runs" / "s", digests)[net] == str(ours), "both are edited"
    Path(net).unlink()
    assert found(places, copy / "runs" / "s", digests)[net] == str(ours), "edited, not gone"
    ours.unlink()
    with pytest.raises(InputError) as caught:
        found(places, copy / "runs" / "s", digests)
    assert (
        str(caught.value) == f"{net!r} does not exist, nor does {str(ours)!r}: put the file there"
    )


def test_a_folder_that_is_nowhere_keeps_its_name(before):
    places = noted(["/gone/images"], Path("/gone/runs/s"))
    assert found(places, before.with_name("after") / "runs" / "s") == {}
    assert found(places, before / "runs" / "s") == {"/gone/images": str(before / "images")}
    # a folder of that name that lies elsewhere around the record is another one
    assert found(places, before / "runs") == found(places, before / "runs" / "s" / "t") == {}


def test_a_file_is_no_folder(before):
    (before / "nets" / "net.py").unlink()
    (before / "nets" / "net.py").mkdir()
    with pytest.raises(InputError, match="does not exist"):
        found({str(before / "nets" / "net.py"): "../../nets/net.py"}, before / "runs" / "s")


@pytest.mark.parametrize("places", [None, 3, ["a"], {"/a.py": 3}, {"/a.py": None}])
def test_what_is_no_note_is_passed_over(places):
    assert found(places, Path("/")) == {}


def test_fields_are_renamed_wherever_they_are():
    names = {"/a/net.py": "/b/net.py", "/a/space.py": "/b/space.py"}
    fields = {
        "base": {"backbone": "/a/net.py", "width": 1.0},
        "space": "calibrate:/a/space.py",
        "finalists": [{"config": {"backbone": "/a/net.py"}}],
        "other": ("/a/net.py", "/a/net.pyc", "x:/c", None),
        "places": {"/a/net.py": "../net.py"},
    }
    now = renamed(fields, names)
    assert now == {
        "base": {"backbone": "/b/net.py", "width": 1.0},
        "space": "calibrate:/b/space.py",
        "finalists": [{"config": {"backbone": "/b/net.py"}}],
        "other": ["/b/net.py", "/a/net.pyc", "x:/c", None],
        "places": {"/a/net.py": "../net.py"},
    }
    assert renamed(now, back(names)) == {**fields, "other": list(fields["other"])}
    assert renamed(fields, {}) is fields
