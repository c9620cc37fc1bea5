"""The memory of this process: the most that it has held, and what becomes of what it frees."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # options of glibc's mallopt
LARGE = 1 << 30  # bytes: more than the largest activation of a network here


def keep_freed() -> None:
    """What is freed stays with this process until `begin`, where the C library is glibc.

    Else the large activations of every step go back to the system and are asked for again, page by
    page: 18,000 page faults a step of ResNet18 (LOG.md).
    """
    _glibc("mallopt", MMAP_THRESHOLD, LARGE)
    _glibc("mallopt", TRIM_THRESHOLD, -1)  # never by itself


def begin(device: str = "cpu") -> bool:
    """The peak begins anew from what is held now; False where the system cannot do that."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    _glibc("malloc_trim", 0)  # what others freed would hide what is taken from now on
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")  # Linux alone
        return True
    return False


def _glibc(name: str, *values: int) -> None:
    """Calls one of its functions; nothing where it is not there."""
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL("libc.so.6"), name)(*values)


def peak(device: str = "cpu") -> int:
    """Bytes: on CUDA of its allocator, else the resident memory of this process, libraries and all.

    Where `begin` cannot do its work it is the peak since the process began.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage where it can be helped: on Linux that begins with what the parent held.
    if (held := status("VmHWM")) is not None:
        return held
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def status(name: str) -> int | None:
    """A line of /proc/self/status in bytes; None where there is none."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else 1024 * int(found.split()[1])
