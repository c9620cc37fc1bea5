"""Downloads from a real server of this machine: cut, wrong, elsewhere, evil."""

import hashlib
import http.server
import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import official_trees
from trainers import fetching
from trainers.catalog import DATASETS, Archive, InputError


class Server:
    """Serves bytes by name, with ranges unless told otherwise, and cuts connections if asked to."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int] = []  # bytes of the body that the next connections bring
        self.ranges = True
        self.failures = 0  # connections that end with an error 503
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                name, wanted = self.path.rpartition("/")[2], self.headers.get("Range")
                outer.asked.append((self.path, wanted))
                if outer.failures:
                    outer.failures -= 1
                    return self.send_error(503)
                if name not in outer.files:
                    return self.send_error(404)
                body, first = outer.files[name], 0
                if wanted and outer.ranges:
                    first = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if first >= len(body):
                        return self.send_error(416)
                    self.send_response(206)
                    text = f"bytes {first}-{len(body) - 1}/{len(body)}"
                    self.send_header("Content-Range", text)
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(body) - first))
                self.end_headers()
                end = len(body)
                if outer.cut_after:
                    end = first + outer.cut_after.pop(0)
                self.wfile.write(body[first:end])
                self.close_connection = True

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.0)


def tarred(folder: Path, *names: str, form: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=form) as tar:
        for name in names:
            tar.add(folder / name, name)
    return stream.getvalue()


def zipped(folder: Path, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            for path in sorted((folder / name).rglob("*")):
                file.write(path, path.relative_to(folder))
    return stream.getvalue()


@pytest.fixture
def publish(official_tree, server, monkeypatch):
    """Puts a small tree's archives on the server and takes the tree away."""

    def make(name: str) -> None:
        root = official_tree(name)
        if name == "tinyimagenet":
            bodies = {"tiny-imagenet-200.zip": zipped(root, "tiny-imagenet-200")}
        elif name == "stanford_dogs":
            folder = root / "stanford_dogs"
            bodies = {
                "images.tar": tarred(folder, "Images", form="w"),
                "lists.tar": tarred(folder, "train_list.mat", "test_list.mat", form="w"),
            }
        else:
            own = {"cub200": "CUB_200_2011", "fgvc_aircraft": "fgvc-aircraft-2013b"}[name]
            file = DATASETS[name].archives[0].url.rpartition("/")[2]
            bodies = {file: tarred(root, own)}
        archives = []
        for archive in DATASETS[name].archives:
            file = archive.url.rpartition("/")[2]
            kind = archive.digest.partition(":")[0]
            digest = f"{kind}:{hashlib.new(kind, bodies[file]).hexdigest()}"
            archives.append(Archive(f"{server.address}/at/{file}", len(bodies[file]), digest))
            server.files[file] = bodies[file]
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], archives=tuple(archives)))
        shutil.rmtree(root)

    return make


def refusal(*args, **how) -> str:
    """The one line of an InputError."""
    with pytest.raises(InputError) as caught:
        fetching.fetch(*args, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", sorted(official_trees.MAKERS))
def test_every_data_set_is_downloaded_and_unpacked(publish, server, tmp_path, name):
    publish(name)
    target, notes, seen = tmp_path / "new" / "place", [], []
    assert fetching.fetch(name, target, on_note=notes.append, on_progress=seen.append) == target
    fetching._whole(name, target)
    assert len(left(target)) == 1, "no archive and no unfinished file stays"
    assert seen[-1].done == seen[-1].total
    server.files.clear()
    assert fetching.fetch(name, target, on_note=notes.append) == target
    assert notes[-1] == f"{name} is there already"
    inside = target / left(target)[0]
    assert fetching.fetch(name, inside) == target, "the data set's folder itself is one, too"


def test_cifar100_is_downloaded_too(server, tmp_path, monkeypatch):
    for file in ("train", "test", "meta"):
        path = tmp_path / "cifar-100-python" / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"stands for a pickle, which is not opened here")
    body = tarred(tmp_path, "cifar-100-python")
    server.files["cifar-100-python.tar.gz"] = body
    archive = replace(
        DATASETS["cifar100"].archives[0], digest=f"md5:{hashlib.md5(body).hexdigest()}"
    )
    entry = replace(DATASETS["cifar100"], archives=(archive,))
    monkeypatch.setitem(DATASETS, "cifar100", entry)
    fetching.fetch("cifar100", tmp_path / "new", server.address)
    assert left(tmp_path / "new") == ["cifar-100-python"]
    assert left(tmp_path / "new" / "cifar-100-python") == ["meta", "test", "train"]


def test_every_entry_says_what_is_published():
    for name, entry in DATASETS.items():
        assert (name == "digits") == (not entry.archives)
        for archive in entry.archives:
            kind, _, digest = archive.digest.partition(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[kind] and int(digest, 16)
            assert archive.size > 1000 and archive.url.startswith("http")


def test_what_is_slow_is_said_before(tmp_path, server, monkeypatch):
    archive = replace(DATASETS["cifar100"].archives[0], url=f"{server.address}/x.tar.gz")
    entry = replace(DATASETS["cifar100"], archives=(archive,))
    monkeypatch.setitem(DATASETS, "cifar100", entry)
    notes: list[str] = []
    assert "404" in refusal("cifar100", tmp_path, on_note=notes.append)
    assert "slow enough to take an hour" in notes[0] and "169 MB" in notes[0]


def test_a_cut_connection_goes_on(publish, server, tmp_path):
    publish("cub200")
    server.cut_after = [1000, 500]
    fetching.fetch("cub200", tmp_path / "new")
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-", "bytes=1500-"]


def test_a_later_call_goes_on(publish, server, tmp_path):
    publish("cub200")
    server.cut_after = [1000] + [0] * 10
    text = refusal("cub200", tmp_path / "new")
    assert "1,000 bytes are kept, the same command goes on" in text and "--mirror" in text
    assert left(tmp_path / "new") == ["CUB_200_2011.tgz.part"]
    server.cut_after, server.asked = [], []
    fetching.fetch("cub200", tmp_path / "new")
    assert server.asked[0][1] == "bytes=1000-"
    assert left(tmp_path / "new") == ["CUB_200_2011"]


def test_a_server_without_ranges_begins_anew(publish, server, tmp_path):
    publish("cub200")
    server.cut_after, server.ranges = [1000], False
    fetching.fetch("cub200", tmp_path / "new")
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-"]


def test_a_file_that_was_whole_already(publish, server, tmp_path):
    publish("cub200")
    (tmp_path / "new").mkdir()
    part = tmp_path / "new" / "CUB_200_2011.tgz.part"
    part.write_bytes(server.files["CUB_200_2011.tgz"])
    fetching.fetch("cub200", tmp_path / "new")
    assert left(tmp_path / "new") == ["CUB_200_2011"]


def test_a_file_that_was_longer(publish, server, tmp_path):
    publish("cub200")
    (tmp_path / "new").mkdir()
    part = tmp_path / "new" / "CUB_200_2011.tgz.part"
    part.write_bytes(server.files["CUB_200_2011.tgz"] + b"more")
    fetching.fetch("cub200", tmp_path / "new")
    assert left(tmp_path / "new") == ["CUB_200_2011"]


def test_a_server_that_fails_for_a_while(publish, server, tmp_path):
    publish("cub200")
    server.failures = 3
    fetching.fetch("cub200", tmp_path / "new")
    server.failures = 1000
    assert "503" in refusal("cub200", tmp_path / "other")


def test_another_file_is_not_kept(publish, server, tmp_path):
    publish("cub200")
    whole = server.files["CUB_200_2011.tgz"]
    server.files["CUB_200_2011.tgz"] = whole[:-1] + b"x"
    text = refusal("cub200", tmp_path / "new")
    assert "is not the published CUB_200_2011.tgz: its MD5 is" in text
    assert left(tmp_path / "new") == []
    server.files["CUB_200_2011.tgz"] = whole
    fetching.fetch("cub200", tmp_path / "new")


@pytest.mark.parametrize("form", ["{}/mirror", "{}/mirror/", "{}/mirror/CUB_200_2011.tgz"])
def test_a_mirror(publish, server, tmp_path, form):
    publish("cub200")
    fetching.fetch("cub200", tmp_path / "new", form.format(server.address))
    assert server.asked == [("/mirror/CUB_200_2011.tgz", None)]


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://host/x", "/a/folder", "http:", ""])
def test_what_is_no_mirror(publish, tmp_path, mirror):
    publish("cub200")
    assert "--mirror needs an http or https address" in refusal("cub200", tmp_path / "new", mirror)


def test_nobody_listens(publish, server, tmp_path):
    publish("cub200")
    text = refusal("cub200", tmp_path / "new", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9/CUB_200_2011.tgz" in text and "refused" in text


def test_two_at_once(publish, server, tmp_path):
    publish("cub200")
    (tmp_path / "new").mkdir()
    with fetching._alone(tmp_path / "new" / "CUB_200_2011.tgz.part"):
        assert "by another process" in refusal("cub200", tmp_path / "new")


def test_a_tree_that_is_not_whole_is_not_taken_for_one(publish, server, tmp_path):
    publish("cub200")
    target = tmp_path / "new"
    fetching.fetch("cub200", target)
    (target / "CUB_200_2011" / "train_test_split.txt").unlink()
    assert "cub200 is not complete" in refusal("cub200", target)


def test_an_archive_of_something_else(publish, server, tmp_path, monkeypatch):
    publish("cub200")
    entry = DATASETS["cub200"]
    monkeypatch.setitem(DATASETS, "cub200", replace(entry, train=entry.train + 1))
    assert "12 train images, not 13" in refusal("cub200", tmp_path / "new")
    assert left(tmp_path / "new") == ["CUB_200_2011.tgz"], "it need not be downloaded again"


def test_a_full_disk(publish, server, tmp_path, monkeypatch):
    publish("cub200")

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "unpack", full)
        text = refusal("cub200", tmp_path / "new")
    assert "No space left on device" in text and "the same command goes on" in text
    asked = len(server.asked)
    fetching.fetch("cub200", tmp_path / "new")
    assert len(server.asked) == asked, "what was downloaded is unpacked"


def test_a_place_that_cannot_be_written(publish, tmp_path):
    publish("cub200")
    (tmp_path / "file").write_text("")
    assert "cannot keep cub200" in refusal("cub200", tmp_path / "file" / "below")


def test_what_needs_no_fetching():
    assert fetching.fetch("digits") is None
    assert "did you mean 'cifar100'" in refusal("cifar10")


# Archives that would write elsewhere


def evil_tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    with tarfile.open(path, "w:gz") as tar:
        good = tarfile.TarInfo("good/file")
        good.size = 2
        tar.addfile(good, io.BytesIO(b"ok"))
        bad = tarfile.TarInfo(name)
        bad.type, bad.linkname = kind, link
        bad.size = 4 if kind == tarfile.REGTYPE else 0
        tar.addfile(bad, io.BytesIO(b"evil"))


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("/abs/evil", tarfile.REGTYPE, ""),
        ("../evil", tarfile.REGTYPE, ""),
        ("good/../../evil", tarfile.REGTYPE, ""),
        ("..\\evil", tarfile.REGTYPE, ""),
        ("C:/evil", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc"),
        ("link", tarfile.SYMTYPE, "good/file"),
        ("link", tarfile.LNKTYPE, "../../secret"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
    ],
)
def test_an_evil_tar(tmp_path, name, kind, link):
    path, inside = tmp_path / "evil.tgz", tmp_path / "deep" / "inside"
    evil_tar(path, name, kind, link)
    inside.mkdir(parents=True)
    before = everything(tmp_path)
    with pytest.raises(InputError, match="it is refused"):
        fetching.unpack(path, inside)
    assert everything(tmp_path) - before <= {"deep/inside/good", "deep/inside/good/file"}
    assert not Path("/abs").exists()


@pytest.mark.parametrize("name", ["/abs/evil", "../evil", "good/../../evil", "..\\evil", "link"])
def test_an_evil_zip(tmp_path, name):
    path, inside = tmp_path / "evil.zip", tmp_path / "deep" / "inside"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good/file", "ok")
        item = zipfile.ZipInfo(name)
        if name == "link":
            item.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(item, "/etc")
    inside.mkdir(parents=True)
    before = everything(tmp_path)
    with pytest.raises(InputError, match="it is refused"):
        fetching.unpack(path, inside)
    assert everything(tmp_path) - before <= {"deep/inside/good", "deep/inside/good/file"}


@pytest.mark.parametrize("form", ["zip", "tar", "nothing"])
def test_a_damaged_archive(tmp_path, form):
    folder = tmp_path / "from"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(100_000))
    body = {"zip": zipped(tmp_path, "from"), "tar": tarred(tmp_path, "from"), "nothing": b"x" * 600}
    damaged = bytearray(body[form])
    damaged[50_000:50_100] = bytes(100)
    (tmp_path / "damaged").write_bytes(damaged if form == "zip" else damaged[: len(damaged) // 2])
    with pytest.raises(InputError, match="cannot be unpacked"):
        fetching.unpack(tmp_path / "damaged", tmp_path / "to")


def test_modes_of_an_archive_are_harmless(tmp_path):
    """No file that others may write, or that runs as somebody else."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        item = tarfile.TarInfo("file")
        item.mode = 0o6777
        tar.addfile(item, io.BytesIO())
    fetching.unpack(tmp_path / "a.tar", tmp_path / "to")
    assert stat.S_IMODE((tmp_path / "to" / "file").stat().st_mode) & 0o6022 == 0
