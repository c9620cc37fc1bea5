"""A run to train with on a GPU: an idle one loaded anew, a new one captured, or step by step.

What was captured for one config stays for the next one of its kind; where memory is short it goes.
"""

import gc
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from trainers.captured import CapturedRun, first_error, kind_of, short_of_memory, why
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.data import Data
from trainers.graphs import empty_cache
from trainers.run import Run

_idle: list[CapturedRun] = []
_never: dict[tuple[Any, ...], str] = {}  # kinds that cannot be captured, and why
_lock = threading.Lock()
# cuDNN chooses its kernels once a thread: made in one, all runs of a process share the choice.
_maker = ThreadPoolExecutor(1, thread_name_prefix="cuda-graphs")


@contextmanager
def opened(config: TrialConfig, data: Data, device: str) -> Iterator[Run]:
    """A run to train with: captured, if the network allows it; an idle one, if one is alike.

    Args:
        config: Of the run.
        data: On the device.
        device: A CUDA device.
    """
    kind = kind_of(config, data, device)
    with _lock:
        run: Run | None = next((idle for idle in _idle if idle.kind == kind), None)
        if isinstance(run, CapturedRun):
            _idle.remove(run)
        else:
            _idle.clear()  # of another kind: the memory is for this one
    if isinstance(run, CapturedRun):
        run.load(config, data)
    else:
        run = _made(config, data, device)
    try:
        yield run
    except GeneratorExit:  # nobody asks for more epochs: as good an end as the last one
        _set_idle(run)
        raise
    _set_idle(run)


def _made(config: TrialConfig, data: Data, device: str) -> Run:
    """A new run: captured, or step by step where that fails for another reason than memory.

    Raises:
        InputError: A network that cannot be built, or too little memory.
    """
    kind = kind_of(config, data, device)
    made = _never.get(kind) or _tried(config, data, device)
    if made is None:
        free_memory()
        made = _tried(config, data, device)
    if made is None:
        side = config.image_size
        raise InputError(
            f"{device} has too little memory for another run of {config.backbone} with batches of "
            f"{config.batch_size} images of {side}x{side} pixels: take fewer --workers, or smaller "
            "batches"
        )
    if isinstance(made, str):
        if kind not in _never:
            empty_cache()  # what the try took on a stream of its own, nobody else can
            _never[kind] = made
        warnings.warn(f"no CUDA graph, every step is launched by itself: {made}", stacklevel=4)
        return Run(config, device)
    return made


def _tried(config: TrialConfig, data: Data, device: str) -> CapturedRun | str | None:
    """A captured run, or why there is none, or None where memory was short.

    What failed holds its memory as long as its error is there, so the error stays in here.
    """
    made = _maker.submit(CapturedRun, config, data, device)
    error = made.exception()
    if error is None:
        return made.result()
    for one in (error, first_error(error)):
        if isinstance(one, InputError) or not isinstance(one, Exception):
            raise one
    return None if short_of_memory(error) else why(error)


def free_memory() -> None:
    """What no run needs any longer, idle runs too, is given back to the device."""
    with _lock:
        _idle.clear()
    gc.collect()  # a run that failed may hang in the traceback of its error
    empty_cache()


def _set_idle(run: Run) -> None:
    if isinstance(run, CapturedRun):
        with _lock:
            _idle.append(run)
