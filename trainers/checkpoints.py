"""A run's state on disk: written to a temporary name and renamed, read without unpickling code.

Beside the newest file lies the one before it, `<name>.before`: what a power cut or a bad disk made
unreadable costs an epoch and not the run.
"""

import contextlib
import glob
import io
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.catalog import InputError

FORMAT, PACKED = "automate-run-1", "automate-run-2"  # each tensor by itself, or end to end
TENSOR, ITEMS = "tensor of the file", "items"  # keys: of a tensor's place, of a dict by numbers


class UnwritableError(InputError):
    """A file cannot be written: a full disk, a folder that is read-only. No fault of the run's."""


class UnreadableError(InputError):
    """A file cannot be read: a bad disk, no permission, too many open files. Its content may be
    whole.
    """


class DamagedError(InputError):
    """What a file holds is truncated, or none of ours."""


class OtherRunError(InputError):
    """A checkpoint belongs to another run."""


def before(path: Path) -> Path:
    """Where the checkpoint before the newest lies."""
    return path.with_name(f"{path.name}.before")


def put(path: Path, content: bytes, keep: Path | None = None) -> None:
    """Bytes to a file, atomically: a reader sees the old file or the new one, whole.

    Args:
        path: Where to. A full disk leaves the old file there.
        content: Of the file.
        keep: The old file moves here instead of being replaced.

    Raises:
        UnwritableError: One line.
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # others may read a study, as without the temporary name
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(name, path)
    except OSError as error:
        raise UnwritableError(
            f"{path} cannot be written: {error.strerror or error}; what is there is kept"
        ) from None
    finally:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)


def write(path: Path, content: Mapping[str, Any], packed: bool = False) -> None:
    """Tensors, numbers, strings, lists and dicts to a file; the one that was there is kept beside.

    Args:
        path, content: As in `put`.
        packed: The tensors of a kind lie end to end as one. Writing some hundred small ones by
            themselves takes as long as a tenth of a tiny network's epoch; others can read them.

    Raises:
        UnwritableError: A full disk, or a folder that cannot be written.
    """
    import torch

    buffer = io.BytesIO()  # so that what fails below is the disk
    if packed:
        found: list[Any] = []
        tree = _without_tensors(content, found)
        kinds: dict[str, list[Any]] = {}
        for tensor in found:
            kinds.setdefault(_kind(tensor), []).append(tensor.detach().reshape(-1))
        flat = {kind: torch.cat(tensors).cpu() for kind, tensors in kinds.items()}
        layout = [(_kind(t), tuple(t.shape), tuple(t.stride())) for t in found]
        # As text, since torch.save looks at every number of what it is given.
        text = json.dumps({"tree": tree, "layout": layout})
        torch.save({"format": PACKED, "text": text, "flat": flat}, buffer)
    else:
        torch.save({"format": FORMAT, **content}, buffer)
    put(path, buffer.getvalue(), keep=before(path))


def _kind(tensor: Any) -> str:
    """Of which all can be joined."""
    return f"{tensor.dtype} on {tensor.device}"


def _without_tensors(content: Any, found: list[Any]) -> Any:
    """The same with a dict in each tensor's place; the tensors are added to `found`."""
    import torch

    if isinstance(content, torch.Tensor):
        found.append(content)
        return {TENSOR: len(found) - 1}
    if isinstance(content, Mapping):
        values = {name: _without_tensors(value, found) for name, value in content.items()}
        return (
            values if all(isinstance(name, str) for name in values) else {ITEMS: [*values.items()]}
        )
    if isinstance(content, list | tuple):
        return [_without_tensors(value, found) for value in content]
    return content


def _tensors(parts: Mapping[str, Any], layout: list[Any]) -> list[Any]:
    """The tensors of a file in the order of their numbers, laid out in memory as they were."""
    places = dict.fromkeys(parts, 0)
    found = []
    for kind, shape, stride in layout:
        flat, size = parts[kind], math.prod(shape)
        tensor = flat[places[kind] : places[kind] + size].view(shape)
        places[kind] += size
        if list(tensor.stride()) != stride:
            tensor = tensor.new_empty_strided(shape, stride).copy_(tensor)
        found.append(tensor)
    return found


def _with_tensors(tree: Any, found: list[Any]) -> Any:
    if isinstance(tree, dict):
        if set(tree) == {TENSOR}:
            return found[tree[TENSOR]]
        if set(tree) == {ITEMS}:
            return {name: _with_tensors(value, found) for name, value in tree[ITEMS]}
        return {name: _with_tensors(value, found) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_with_tensors(value, found) for value in tree]
    return tree


def remove(path: Path) -> None:
    """Both checkpoints, and what a killed process left half written, if they can be removed."""
    halves = path.parent.glob(f".{glob.escape(path.name)}.*")
    for file in (path, before(path), *halves):
        with contextlib.suppress(OSError):
            file.unlink()


def remove_older(path: Path) -> None:
    """The checkpoint before the newest, where the newest is there."""
    if path.exists():
        with contextlib.suppress(OSError):
            before(path).unlink()


def read(path: Path, device: str = "cpu") -> dict[str, Any]:
    """The content of a file that `write` made.

    Raises:
        InputError: No such file.
        UnreadableError: The disk or the system fails, not the content.
        DamagedError: Truncated, foreign, or in need of unpickling.
        MemoryError, torch.OutOfMemoryError, torch.AcceleratorError: As they come; they say nothing
            of the file.
    """
    import torch

    try:
        raw = path.read_bytes()  # by itself, so that what fails below is the content
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        content = torch.load(io.BytesIO(raw), map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # Of what is no archive of torch's it tells its own versions, or where its unpickler ended.
        if reason.startswith("Weights only") or not raw.startswith(b"PK"):
            reason = "it holds something else than weights"
        raise DamagedError(
            f"{path} is no checkpoint of ours or is damaged: {reason[:120]}"
        ) from None
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, PACKED):
        raise DamagedError(f"{path} is no checkpoint of ours (format {FORMAT} expected)")
    if content["format"] == FORMAT:
        return content
    try:
        text = json.loads(content["text"])
        return dict(_with_tensors(text["tree"], _tensors(content["flat"], text["layout"])))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedError(f"{path} is damaged: {error!r:.120}") from None
