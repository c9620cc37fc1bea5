"""The search in this process, several trials at a time on one GPU.

Each trial has a thread, and in it a run with a stream and CUDA graphs of its own
(`trainers.captured`): a thread only starts graphs, so that the GPU is filled by all trials
together. One trial is stopped, and the next begins, whatever the others do. The study is filled
through the same record as everywhere, by one thread at a time.
"""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, cast

from studies import local, trial
from studies.limits import Grants, Limits
from studies.record import StudyRecord
from studies.trial import Event, OnEvent


class _Stop(BaseException):
    """Asks a thread to give its trial back."""


class _Guarded:
    """Something whose methods one thread calls at a time."""

    def __init__(self, inner: object, lock: "threading.RLock") -> None:
        self._inner, self._lock = inner, lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._locked(found) if callable(found) else found

    def _locked(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return method(*args, **kwargs)

        return call


def search(
    record: StudyRecord, on_event: OnEvent = trial.ignore, limits: Limits | None = None
) -> str | None:
    """Runs the study's waiting trials, as many at a time as its plan has workers.

    As `studies.local.search`, but that a trial that hangs is left to itself. What ends this process
    in order gives all running trials back at the end of their epochs.

    Args:
        record: An open study, owned by this process.
        on_event: Called with what happens, by one thread at a time.
        limits: What this call may spend.

    Returns:
        Why it ended before its trials did; None if none is left.

    Raises:
        StorageError: The storage failed, or a checkpoint cannot be written: the trials wait.
    """
    lock, stopping = threading.RLock(), threading.Event()
    shared = cast(StudyRecord, _Guarded(record, lock))
    grants = cast(Grants, _Guarded(Grants(record, limits or Limits()), lock))

    def heard(event: Event) -> None:
        with lock:
            on_event(event)
        if stopping.is_set() and event.kind in ("started", "epoch"):
            raise _Stop

    def pause(seconds: float) -> None:
        if stopping.wait(seconds):
            raise _Stop

    def work() -> str | None:
        try:
            return local.work(shared, heard, grants, pause)
        except _Stop:
            return None

    try:
        with record.renewing(), ThreadPoolExecutor(record.plan.workers) as pool:
            tasks = [pool.submit(work) for _ in range(record.plan.workers)]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)  # Ctrl-C arrives here
            finally:
                stopping.set()
        return next((reason for task in tasks if (reason := task.result()) is not None), None)
    finally:
        record.release()
