"""What a search costs beyond its training: its start, and each trial's choosing and storing."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.search import drive
from studies.trial import Event
from trainers.config import TrialConfig
from trainers.reports import EpochReport, ExitPoint
from trainers.rounds import Row

EPOCHS = 8


def trial_table(*, trials: int = 30, space: str = "diverse_alpha") -> list[Row]:
    """Time of asking for a trial, storing its epochs and telling its end, on SQLite.

    The trials train nothing: their reports are made up. CPU time, which other load leaves as it is,
    and the time on the clock of the whole, which waits for the disk too.
    """
    base = TrialConfig(epochs=EPOCHS)
    plan = StudyPlan(study="overhead", space=space, base=base, trials=trials, grace=2)
    asks, reports, whole, clock = [], [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(StudyRecord.create_or_open(plan, runs=Path(folder))) as record,
    ):
        while True:
            begin, wall = time.thread_time(), time.perf_counter()
            ticket = record.ask()
            if ticket is None:
                break
            asks.append(time.thread_time() - begin)
            for epoch in range(1, EPOCHS + 1):
                report = _made_up(ticket.number, epoch)
                before = time.thread_time()
                going_on = record.report(ticket, report)
                reports.append(time.thread_time() - before)
                if not going_on:
                    break
            whole.append(time.thread_time() - begin)
            clock.append(time.perf_counter() - wall)
    return [
        Row("a trial", name, 1e3 * statistics.median(times), unit, rounds=len(times))
        for name, times, unit in (
            ("ask", asks, "ms CPU"),
            ("an epoch's report", reports, "ms CPU"),
            (f"in all, {EPOCHS} epochs", whole, "ms CPU"),
            (f"in all, {EPOCHS} epochs", clock, "ms"),
        )
    ]


def beyond_table(
    sides: Sequence[tuple[str, int]] = (("local", 1), ("Ray", 2)), *, each: int = 4, epochs: int = 6
) -> list[Row]:
    """Seconds that a trial of the digits takes beyond its epochs: choosing, starting, storing,
    checkpoints, and what Ray does between them.

    Counted from the first epoch's report, so that starting processes is left out; no trial is
    stopped early, so that all workers end together.

    Args:
        sides: Names, and numbers of workers.
        each: Trials of each worker.
        epochs: Of a trial.
    """
    rows = []
    for name, workers in sides:
        base = TrialConfig(epochs=epochs)
        plan = StudyPlan(
            study="beyond",
            space="diverse_alpha",
            base=base,
            trials=each * workers,
            grace=epochs,
            early_stopping=False,
            workers=workers,
        )
        heard: list[tuple[float, float]] = []

        def hear(event: Event, heard: list[tuple[float, float]] = heard) -> None:
            if event.kind == "epoch" and event.report is not None:
                heard.append((time.perf_counter(), event.report.seconds))

        with (
            tempfile.TemporaryDirectory() as folder,
            closing(StudyRecord.create_or_open(plan, runs=Path(folder))) as record,
        ):
            drive(record, on_event=hear)
        passed = heard[-1][0] - heard[0][0]
        trained = sum(seconds for _, seconds in heard[1:])
        beyond = (workers * passed - trained) / (plan.trials - 1)
        note = f"{trained / (len(heard) - 1):.3f} s an epoch"
        rows.append(
            Row("a trial beyond its epochs", name, beyond, "s", rounds=plan.trials, note=note)
        )
    return rows


def _made_up(number: int, epoch: int) -> EpochReport:
    exits = tuple(
        ExitPoint(
            exit=k,
            flops=1000 * k,
            flops_cascade=1100 * k,
            accuracy=0.5 + 0.04 * k + 0.01 * ((number * 7) % 10) + 0.001 * epoch,
            top5=1.0,
        )
        for k in range(1, 5)
    )
    return EpochReport(epoch=epoch, loss=2.0, seconds=0.1, split="validation", exits=exits)


def start_table(
    sides: Sequence[tuple[str, Sequence[str]]] = (("local", ("--workers", "1")),),
    *,
    rounds: int = 3,
) -> list[Row]:
    """Seconds from starting `automate search` on the digits to its first epoch's report.

    Args:
        sides: Names, and the flags that make them, e.g. ("Ray", ("--workers", "2")).
        rounds: How often each.
    """
    rows = []
    for name, flags in sides:
        times = [_start(flags) for _ in range(rounds)]
        rows.append(
            Row(
                "start to first report",
                name,
                statistics.median(times),
                "s",
                rounds=rounds,
                note=f"{min(times):.1f} to {max(times):.1f}",
            )
        )
    return rows


def _start(flags: Sequence[str]) -> float:
    """One search in a process of its own, which says when its first report is stored."""
    code = (
        "import sys, os\n"
        "from studies import record\n"
        "stored = record.StudyRecord.report\n"
        "def report(self, ticket, given):\n"
        "    stored(self, ticket, given)\n"
        "    print('REPORTED', flush=True)\n"
        "    raise KeyboardInterrupt\n"
        "record.StudyRecord.report = report\n"
        "from automate.main import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", code, "search", "--space", "diverse_alpha", "--runs-dir", folder]
            + ["--trials", "4", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith("REPORTED"):
                    return time.perf_counter() - begin
        finally:
            process.stdout.close()
            process.wait()
    raise RuntimeError("the search ended before its first report: " + "".join(said)[-500:])
