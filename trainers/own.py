"""A user's own Python files, of a network, a scheme or a space: what is in them, and what goes
wrong there.

No torch here, as in `trainers.catalog`.
"""

import ast
import hashlib
import importlib.util
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from trainers.catalog import BACKBONES, InputError, is_path, shortened, unknown

FILES = ("backbone", "scheme")  # the fields of TrialConfig that may name a user's file


def missing(kind: str, name: str) -> InputError:
    """The refusal of a file of the user that is not there."""
    return InputError(f"{kind} file {name!r} does not exist or is not a file")


def file_digest(name: str) -> str | None:
    """What tells a user's file from an edited one; None of what is no file."""
    if not is_path(name) or not Path(name).is_file():
        return None
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]


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
        raise missing(kind, name)
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
    except (Exception, SystemExit) as error:  # whatever the user's file raises is theirs to read
        sys.modules.pop(module_name, None)
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = ": it needs to stand alone, with installed packages alone"
        raise InputError(f"{kind} file {name!r} fails: {told(error, path)}{hint}") from error
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
    if not Path(backbone).is_file():
        raise missing("backbone", backbone)
    return _exits_in(backbone, Path(backbone).read_bytes())


@lru_cache(maxsize=64)  # a study asks of one file thousands of times
def _exits_in(backbone: str, content: bytes) -> int:
    try:
        tree = ast.parse(content)
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
