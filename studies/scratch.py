"""A folder for what Ray Tune insists on writing, in the machine's temporary one.

It goes with the search. A process that is killed leaves its own, and the next search removes that.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from studies.drivers import Driver, is_dead

PREFIX = "automate-ray-"
OWNER = "driver"  # a file of the folder: the name of the process that made it


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new folder, removed at the end; before that, those of dead processes are."""
    for left in left_behind():
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        (folder / OWNER).write_text(Driver().name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def left_behind() -> list[Path]:
    """Folders of this user that say whose they are: of processes of this machine, dead by now."""
    found = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or of someone else's
            about = folder.lstat()
            ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
            if ours and is_dead((folder / OWNER).read_text()):
                found.append(folder)
    return found
