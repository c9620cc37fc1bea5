"""The search in this process, one trial at a time."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import FrameType

from studies import faults, trial
from studies.limits import Grants, Limits
from studies.record import StudyRecord, Ticket
from studies.storage import StorageError
from studies.trial import Event, OnEvent
from trainers.catalog import InputError
from trainers.checkpoints import UnwritableError

ASK_AGAIN = 0.5  # seconds, where the next trials wait for those that others run


class _Hung(BaseException):
    """No epoch came for too long. No `except Exception` on the way may take it for its own."""


def search(
    record: StudyRecord, on_event: OnEvent = trial.ignore, limits: Limits | None = None
) -> str | None:
    """Runs the study's waiting trials until there is none left, or a limit is reached.

    A trial that raises, or hangs where Python can be interrupted, is tried again or told FAIL with
    the reason (`studies.faults`), and the next one begins. Ctrl-C, and whatever else ends this
    process in order, gives the running trial back with its last checkpoint.

    Args:
        record: An open study, owned by this process.
        on_event: Called with what happens, in this thread.
        limits: What this call may spend.

    Returns:
        Why it ended before its trials did; None if none is left.

    Raises:
        StorageError: The storage failed, or a checkpoint cannot be written: the trial waits.
    """
    try:
        with record.renewing():
            return work(record, on_event, Grants(record, limits or Limits()))
    finally:
        record.release()


def work(
    record: StudyRecord,
    on_event: OnEvent,
    grants: Grants,
    wait: Callable[[float], object] = time.sleep,
) -> str | None:
    """Runs waiting trials one after another; see `search`.

    Args:
        record: An open study, whose leases are renewed.
        on_event: Called with what happens, in this thread.
        grants: What may be spent.
        wait: Lets so many seconds pass, while others run what the next trials wait for.
    """
    pace = faults.Pace()
    while (late := grants.out_of_time()) is None:
        held_back = record.held_back()  # before it is asked: others may end the round meanwhile
        ticket = record.ask()
        if ticket is None and held_back:
            wait(ASK_AGAIN)
            continue
        if ticket is None:
            return None
        refused = _one(record, ticket, on_event, grants, pace)
        refused = refused or faults.hopeless(record.outcomes())
        if refused is not None:
            return refused
    return late


def _one(
    record: StudyRecord,
    ticket: Ticket,
    on_event: OnEvent,
    grants: Grants,
    pace: faults.Pace,
) -> str | None:
    """One trial. Returns why its next epoch was not granted, None if it came to its end."""
    refused, again = None, False
    try:
        on_event(Event("started", ticket.number, ticket.config))
        refused = grants.refusal() or _train(record, ticket, on_event, grants, pace)
    except StorageError:  # not the trial's fault: it stays ours, and goes back with the rest
        raise
    except UnwritableError as error:  # nor this
        record.give_back(ticket)
        on_event(Event("given back", ticket.number, ticket.config))
        raise StorageError(str(error)) from None
    except _Hung as error:
        again = record.broke(ticket, str(error), died=True)
    except Exception as error:
        if isinstance(error, InputError) and faults.untouched(record.outcomes()):
            refused = trial.reason_of(error)
        else:
            again = record.broke(ticket, trial.reason_of(error))
    except BaseException:  # Ctrl-C
        record.give_back(ticket)
        on_event(Event("given back", ticket.number, ticket.config))
        raise
    if refused is not None:
        record.give_back(ticket)
    if again or refused is not None:
        on_event(Event("given back", ticket.number, ticket.config))
        return refused
    outcome = record.outcome(ticket.number)
    on_event(
        Event("ended", ticket.number, ticket.config, state=outcome.state, reason=outcome.reason)
    )
    return None


def _train(
    record: StudyRecord,
    ticket: Ticket,
    on_event: OnEvent,
    grants: Grants,
    pace: faults.Pace,
) -> str | None:
    plan = record.plan
    reports = trial.run(
        ticket.config,
        data_root=plan.data_root,
        device=plan.device,
        threads=plan.threads,
        checkpoint=record.checkpoint(ticket.number),
        purpose=plan.purpose,
        each_epoch=plan.each_epoch,
        hits=plan.keeps_hits,
    )
    with closing(reports), _alarm() as expect:  # type: ignore[type-var]
        while True:
            expect(pace.hung_after(ticket.config))
            report = next(reports, None)
            expect(None)
            if report is None:
                return None
            if report.epoch > ticket.epochs_done:
                pace.trained(ticket.config, report.seconds)
            going_on = record.report(ticket, report)
            on_event(Event("epoch", ticket.number, ticket.config, report))
            if not going_on:
                return None
            # What lies in the checkpoint comes again, and was granted when it was trained.
            if report.epoch >= ticket.epochs_done and (refused := grants.refusal()) is not None:
                return refused


@contextlib.contextmanager
def _alarm() -> Iterator[Callable[[float | None], None]]:
    """A function that has `_Hung` raised in this thread after so many seconds; None: not any more.

    Only the main thread can be interrupted, and only between two steps of Python: code that hangs
    inside a library is left to itself. A caller's own handlers are left alone. A process that was
    stopped (Ctrl-Z) and goes on has the whole time again.
    """
    ours = {signal.SIGALRM, signal.SIGCONT}
    main = threading.current_thread() is threading.main_thread()
    if not main or any(signal.getsignal(one) not in (signal.SIG_DFL, None) for one in ours):
        yield lambda seconds: None
        return
    limit, rung = 0.0, False

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal rung
        if rung:
            raise _Hung(f"no report for {limit:.0f} s: it hung")
        # Whoever was stopped meanwhile has this signal first, and then the one that it goes on.
        rung = True
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    def goes_on(number: int, frame: FrameType | None) -> None:
        expect(limit)

    def expect(seconds: float | None) -> None:
        nonlocal limit, rung
        limit, rung = seconds or 0.0, False
        signal.setitimer(signal.ITIMER_REAL, limit)

    before = {
        signal.SIGALRM: signal.signal(signal.SIGALRM, ring),
        signal.SIGCONT: signal.signal(signal.SIGCONT, goes_on),
    }
    try:
        yield expect
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for one, handler in before.items():
            signal.signal(one, handler)
