"""The search in this process, one trial at a time."""

from contextlib import closing

from studies import trial
from studies.record import StudyRecord, Ticket
from studies.storage import StorageError
from studies.trial import Event, OnEvent


def search(record: StudyRecord, on_event: OnEvent = trial.ignore) -> None:
    """Runs the study's waiting trials until there is none left.

    A trial that raises is told FAIL with the reason, and the next one begins. Ctrl-C, and whatever
    else ends this process in order, gives the running trial back with its last checkpoint.

    Args:
        record: An open study, owned by this process.
        on_event: Called with what happens, in this thread.
    """
    try:
        while (ticket := record.ask()) is not None:
            _one(record, ticket, on_event)
    finally:
        record.release()


def _one(record: StudyRecord, ticket: Ticket, on_event: OnEvent) -> None:
    try:
        on_event(Event("started", ticket.number, ticket.config))
        _train(record, ticket, on_event)
    except StorageError:  # not the trial's fault: it stays ours, and goes back with the rest
        raise
    except Exception as error:
        record.fail(ticket, trial.reason_of(error))
    except BaseException:  # Ctrl-C
        record.give_back(ticket)
        on_event(Event("given back", ticket.number, ticket.config))
        raise
    outcome = record.outcome(ticket.number)
    on_event(
        Event("ended", ticket.number, ticket.config, state=outcome.state, reason=outcome.reason)
    )


def _train(record: StudyRecord, ticket: Ticket, on_event: OnEvent) -> None:
    plan = record.plan
    reports = trial.run(
        ticket.config,
        data_root=plan.data_root,
        device=plan.device,
        threads=plan.threads,
        checkpoint=record.checkpoint(ticket.number),
        purpose=plan.purpose,
        each_epoch=plan.each_epoch,
    )
    with closing(reports):  # type: ignore[type-var]
        for report in reports:
            going_on = record.report(ticket, report)
            on_event(Event("epoch", ticket.number, ticket.config, report))
            if not going_on:
                return
