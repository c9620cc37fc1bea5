"""The most memory that this process has held, as the system counts it."""

import contextlib
import resource
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin(device: str = "cpu") -> bool:
    """The peak begins anew from what is held now; False where the system cannot do that."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")  # Linux alone
        return True
    return False


def peak(device: str = "cpu") -> int:
    """Bytes: on CUDA of its allocator, else the resident memory of this process, libraries and all.

    Where `begin` cannot do its work it is the peak since the process began.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage where it can be helped: on Linux that begins with what the parent held.
    held = status("VmHWM")
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if held is None else held


def status(name: str) -> int | None:
    """A line of /proc/self/status in bytes; None where there is none."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else 1024 * int(found.split()[1])
