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
from trainers.bench import Row
from trainers.config import TrialConfig
from trainers.reports import EpochReport, ExitPoint

EPOCHS = 8


def trial_table(*, trials: int = 30, space: str = "diverse_alpha") -> list[Row]:
    """CPU time of asking for a trial, storing its epochs and telling its end, on SQLite.

    The trials train nothing: their reports are made up.
    """
    base = TrialConfig(epochs=EPOCHS)
    plan = StudyPlan(study="overhead", space=space, base=base, trials=trials, grace=2)
    asks, reports, whole = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(StudyRecord.create_or_open(plan, runs=Path(folder))) as record,
    ):
        while True:
            begin = time.thread_time()
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
    return [
        Row("a trial", name, 1e3 * statistics.median(times), "ms CPU", rounds=len(times))
        for name, times in (("ask", asks), ("an epoch's report", reports), ("in all", whole))
    ]


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
