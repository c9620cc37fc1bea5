"""Downloads that go on where they were cut, are checked against a digest, and unpacked safely.

What is not complete has another name: `NAME.part` beside the data sets while it is downloaded,
a folder `unpacking-...` while it is unpacked. So a data set's folder is whole or not there.
"""

import fcntl
import hashlib
import os
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from trainers import catalog, official, sources
from trainers.catalog import DATASETS, Archive, InputError

BLOCK = 1 << 18  # bytes read at a time
TIMEOUT = 60.0  # seconds without a byte after which a connection counts as cut
TRIES = 5  # connections in a row that bring nothing
PAUSE = 2.0  # seconds before another connection


@dataclass(frozen=True)
class Progress:
    """How far a download is.

    Attributes:
        name: The file's.
        done: Bytes that are there.
        total: Bytes in all.
        rate: Bytes a second since this connection began.
    """

    name: str
    done: int
    total: int
    rate: float


OnProgress = Callable[[Progress], None]
OnNote = Callable[[str], None]


def fetch(
    name: str,
    root: str | Path | None = None,
    mirror: str | None = None,
    *,
    on_note: OnNote = lambda text: None,
    on_progress: OnProgress = lambda progress: None,
) -> Path | None:
    """Downloads a data set, unless it is there already. Called again it goes on.

    Args:
        name: A key of `DATASETS`. "digits" is no error: there is nothing to do.
        root: Where to put it; AUTOMATE_DATA or ./data if None.
        mirror: Where else the same files lie: the URL of a folder, or of the file if it is one.
        on_note: Told what happens, a sentence at a time.
        on_progress: Told how far a file is, with every block.

    Returns:
        The folder to give as --data-root; None where there is nothing to download.

    Raises:
        InputError: Unknown name; no connection, no space, what came is not the published file,
            or an archive that would write elsewhere.
    """
    if name not in DATASETS:
        raise catalog.unknown("dataset", name, DATASETS)
    entry, folder = DATASETS[name], sources.data_root(root)
    if not entry.archives:
        return None
    own = official.folder_name(name)
    folder = folder.parent if folder.name == own else folder
    if (folder / own).exists():
        _whole(name, folder)
        on_note(f"{name} is there already")
        return folder
    about = f"{name}: {entry.download / 1e6:,.0f} MB to {folder}"
    on_note(f"{about} ({entry.note})" if entry.note else about)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unpacking-", dir=folder) as temporary:
            place, files = Path(temporary), []
            for archive in entry.archives:
                files.append(_download(archive, folder, mirror, on_note, on_progress))
                on_note(f"unpacking {files[-1].name}")
                unpack(files[-1], place / own if len(entry.archives) > 1 else place)
            _whole(name, place)
            (place / own).rename(folder / own)
    except OSError as error:
        raise InputError(
            f"cannot keep {name} in {str(folder)!r}: {error.strerror or error}; with that put "
            "right, the same command goes on"
        ) from None
    for file in files:
        file.unlink()
    return folder


def _whole(name: str, folder: Path) -> None:
    """Raises InputError unless both splits are there and complete. Opens no image."""
    for split in ("train", "test"):
        official.listing(name, folder, split)


def _download(
    archive: Archive, folder: Path, mirror: str | None, on_note: OnNote, on_progress: OnProgress
) -> Path:
    """The archive in `folder`, checked."""
    url = _address(archive, mirror)
    path = folder / PurePosixPath(urlsplit(archive.url).path).name
    part = path.with_name(path.name + ".part")
    if not path.exists():
        with _alone(part) as file:
            _receive(url, file, archive.size, on_note, on_progress)
        part.rename(path)
    on_note(f"checking {path.name}")
    kind, _, expected = archive.digest.partition(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != expected:
        path.unlink()
        raise InputError(
            f"{url} is not the published {path.name}: its {kind.upper()} is {found}, not "
            f"{expected}; it is deleted, the same command downloads it again"
        )
    return path


def _address(archive: Archive, mirror: str | None) -> str:
    if mirror is None:
        return archive.url
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
        raise InputError(f"--mirror needs an http or https address, got {mirror!r}")
    name = archive.url.rpartition("/")[2]
    return mirror if mirror.endswith(f"/{name}") else f"{mirror.rstrip('/')}/{name}"


@contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """The unfinished file, to append to, which no other process downloads."""
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{str(part)!r} is being downloaded by another process") from None
        yield file


def _receive(url: str, file: BinaryIO, size: int, on_note: OnNote, on_progress: OnProgress) -> None:
    """Appends what is missing of `url`, over as many connections as it takes."""
    tries, have = 0, file.tell()
    while True:
        before = have
        try:
            have, total = _one_connection(url, file, size, on_progress)
            if have >= total:
                return
            reason = "the connection was cut"
        except HTTPError as error:
            error.close()  # it holds the connection
            if error.code < 500:
                raise InputError(
                    f"cannot download {url}: {error}; --mirror names another host"
                ) from None
            reason = str(error)
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", None) or error)
        have = file.tell()
        tries = 1 if have > before else tries + 1
        if tries == TRIES:
            raise InputError(
                f"cannot download {url}: {reason}; {have:,} bytes are kept, the same command goes "
                "on from there, and --mirror names another host"
            )
        on_note(f"{reason}: going on from {have:,} bytes")
        time.sleep(PAUSE)


def _one_connection(
    url: str, file: BinaryIO, size: int, on_progress: OnProgress
) -> tuple[int, int]:
    """Appends what one connection brings. Returns the bytes that are there, and all there are."""
    have = file.tell()
    request = Request(url, headers={"User-Agent": "mate-automate", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response: HTTPResponse = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416:  # the range begins at the end, or behind it
            raise
        error.close()
        if have == size:
            return have, have
        _empty(file)
        return 0, size
    with response:
        if have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            _empty(file)  # it begins anew
            have = 0
        left = response.headers.get("Content-Length")
        total = have + int(left) if left else size
        begin, at_first = time.monotonic(), have
        while block := response.read(BLOCK):
            file.write(block)
            have += len(block)
            seconds = time.monotonic() - begin
            rate = (have - at_first) / seconds if seconds else 0.0
            on_progress(Progress(url.rpartition("/")[2], have, total, rate))
            if have > max(total, size):
                break  # more than was announced: no digest will fit
    file.flush()
    return have, total


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar file into a folder, and nothing anywhere else.

    Raises:
        InputError: A damaged archive, or one with links, devices or names that leave the folder;
            what came before these is left in `folder`.
        OSError: It cannot be written.
    """
    folder.mkdir(exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for item in zipped.infolist():
                    mode = item.external_attr >> 16
                    plain = not mode or stat.S_ISREG(mode) or stat.S_ISDIR(mode)
                    _inside(archive, item.filename, plain or not stat.S_IFMT(mode))
                    zipped.extract(item, folder)
            return
        with tarfile.open(archive) as tar:
            for member in tar:
                _inside(archive, member.name, member.isreg() or member.isdir())
                tar.extract(member, folder, filter="data")
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise InputError(f"{str(archive)!r} cannot be unpacked: {error}") from None


def _inside(archive: Path, name: str, plain: bool) -> None:
    """Raises InputError for a member that is no plain file or folder below the archive's own."""
    away = name.startswith(("/", "\\")) or ":" in name.split("/")[0] or os.path.isabs(name)
    if away or ".." in name.replace("\\", "/").split("/"):
        raise InputError(
            f"{str(archive)!r} would write to {name!r}, outside its own folder: it is refused"
        )
    if not plain:
        raise InputError(
            f"{str(archive)!r} holds {name!r}, which is a link or no file: it is refused"
        )
