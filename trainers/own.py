"""A user's own Python files, of a network or a space: where they are, and what goes wrong in them.

No torch here, as in `trainers.catalog`.
"""

import ast
import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from trainers.catalog import BACKBONES, InputError, is_path, shortened, unknown

_places: list[Path] = []  # folders around records that were read, the newest first
UP = 6  # from weights to the folder with runs/<study>/best/<config>/seed-<n>/weights.pt


def look_in(*folders: Path) -> None:
    """From now on what is not where it was is looked for there too, in the first of them first."""
    for folder in reversed(folders):
        if folder.absolute() not in _places:
            _places.insert(0, folder.absolute())


def look_around(record: str | Path) -> None:
    """As `look_in`: in the folders above a config's or a network's file."""
    look_in(*Path(record).absolute().parents[:UP])


def moved(name: str) -> str:
    """A user's file or folder by the path that it has now, for records that name the one it had.

    What is not where it was is looked for under the folders around the records that were read, then
    the one that one is in: under the longest end of its path that is there. So a project that is
    moved goes on as a whole; and a copy of it goes by its own files, as long as they are equal.
    A path that is not absolute is none of a record, and stays.
    """
    path = Path(name)
    if not is_path(name) or not path.is_absolute():
        return name
    there = path.exists()
    for folder in dict.fromkeys((*_places, Path().absolute())):
        if there and path.is_relative_to(folder):
            return name
        for begin in range(1, len(path.parts)):
            found = folder.joinpath(*path.parts[begin:])
            if not (found.is_file() if path.suffix == ".py" else found.is_dir()):
                continue
            if not there or (found.is_file() and file_digest(str(found)) == file_digest(name)):
                return str(found)
    return name


def _missing(kind: str, name: str) -> InputError:
    """No such file."""
    hint = ""
    if Path(name).is_absolute():
        hint = ": put it there, or beside the runs folder"
    return InputError(f"{kind} file {name!r} does not exist or is not a file{hint}")


def file_digest(name: str) -> str | None:
    """What tells a user's file from an edited one; None of what is no file."""
    path = Path(name)
    if not is_path(name) or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def run_file(kind: str, name: str) -> ModuleType:
    """A user's Python file as a module: it is run, here and now.

    Args:
        kind: What the file gives, e.g. "backbone".
        name: Its path.

    Raises:
        InputError: No such file, no Python file, or whatever it raises itself.
    """
    path = Path(name)
    if not path.is_file():
        raise _missing(kind, name)
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    module_name = f"{kind}_{path.stem}_{digest}"  # no other module's, nor that of another file
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{kind} file {name!r} is no Python file: its name needs to end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # where a dataclass looks its annotations up
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        sys.modules.pop(module_name, None)
        raise _no_python(kind, name, error) from None
    except Exception as error:  # whatever the user's file raises is the user's to read
        sys.modules.pop(module_name, None)
        raise InputError(f"{kind} file {name!r} fails: {told(error, path)}") from error
    return module


def _no_python(kind: str, name: str, error: Exception) -> InputError:
    said: object = error
    if isinstance(error, SyntaxError):  # its text names the file once more
        said = f"line {error.lineno}: {error.msg}"
    return InputError(f"{kind} file {name!r} is not valid Python: {said}")


def told(error: BaseException, file: str | Path) -> str:
    """An error out of a user's file, with the line of the file that it came through last.

    Args:
        error: As it was caught.
        file: Of the user.
    """
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename) == Path(file).absolute()]
    where = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, InputError):  # ours, which says by itself what is wrong
        return f"{where}{shortened(error)}"
    return f"{where}{shortened(f'{type(error).__name__}: {error}'.removesuffix(': '), 200)}"


def exits_of(backbone: str) -> int:
    """Number of exits M of a backbone, by name or by the path of a user's Python file.

    A file is parsed, not run: it says `EXITS = 4` at its top level.

    Raises:
        InputError: Unknown name, no such file, or no `EXITS` in it.
    """
    if backbone in BACKBONES:
        return BACKBONES[backbone].exits
    if not is_path(backbone):
        raise unknown("backbone", backbone, BACKBONES, "or a path to a .py file")
    path = Path(backbone)
    if not path.is_file():
        raise _missing("backbone", backbone)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise _no_python("backbone", backbone, error) from None
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        for target in targets:
            if isinstance(target, ast.Name) and target.id == "EXITS":
                value = getattr(getattr(node, "value", None), "value", None)
                if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
                    return value
    raise InputError(
        f"backbone file {backbone!r} needs a line 'EXITS = 3' with the number of its exits as a "
        "plain number: it is read without running the file"
    )
