"""Device and threads that are asked for, checked before anything runs."""

from trainers import catalog
from trainers.catalog import InputError

DEVICES = ("cpu", "cuda")


def settled_device(device: str | None, visible: int | None = None) -> str:
    """The device to run on: the one that is asked for; if none is, CUDA where there is one.

    Args:
        device: "cpu", "cuda" or None.
        visible: CUDA devices of a cluster; those of this process if None.

    Raises:
        InputError: Neither "cpu" nor "cuda", or CUDA where no device is visible.
    """
    if device is not None and device not in DEVICES:
        raise catalog.unknown("device", device, DEVICES)
    if device == "cpu":
        return device
    where = "is visible" if visible is None else "is in the Ray cluster"
    if visible is None:
        import torch  # a second, which a CPU that is asked for need not wait for

        visible = torch.cuda.device_count()
    if device == "cuda" and not visible:
        raise InputError(f"device cuda: no CUDA device {where}; take --device cpu")
    return "cuda" if visible else "cpu"


def usable_device(device: str) -> str:
    """The device, or the CPU where this process does not see it: what was trained on a GPU of
    another machine can be scored here."""
    import torch

    return device if device == "cpu" or torch.cuda.device_count() else "cpu"


def check_threads(threads: int | None) -> None:
    """Refuses a number of CPU threads below 1; None is as many as there are. Raises InputError."""
    if threads is not None and threads < 1:
        raise InputError(f"threads needs to be at least 1, got {threads}")
