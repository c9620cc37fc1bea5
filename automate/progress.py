"""How a search goes, told while it runs: a live table on a terminal, plain lines elsewhere."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from automate.printing import Fitted, clean, console, duration
from studies.front import curve, deployable
from studies.plan import StudyPlan, is_front
from studies.states import ENDED, Outcome
from studies.trial import Event
from studies.verdict import STATES, counted, objective_name, setting, state_name, value_text
from trainers.reports import EpochReport

LINE_EVERY = 20.0  # seconds between two lines about epochs, where no trial ends
SHOWN = 10  # trials in the live table


@dataclass
class Row:
    """What is known of one trial.

    Attributes:
        state: As in the study.
        length: Its full length, epochs.
        epochs: Completed.
        report: The last one with exits.
        value: Of the objective, of an ended trial.
        params: What the sampler chose.
        reason: Why it was stopped or failed.
        diverged: Its loss was not finite.
        run_on: The rung that stopped it, where it ran on all the same.
        touched: Order in which the trials were last heard of.
    """

    state: str
    length: int
    epochs: int = 0
    report: EpochReport | None = None
    value: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    diverged: bool = False
    run_on: int | None = None
    touched: int = 0


class Progress:
    """A search as its events tell it. Knows no terminal.

    Args:
        plan: Of the study.
        read: The study's trials as they are now.
        clock: Seconds.
    """

    def __init__(
        self,
        plan: StudyPlan,
        read: Callable[[], list[Outcome]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.rows: dict[int, Row] = {}
        self._read = read
        self._clock = clock
        self._begin = clock()
        self._trained = 0  # epochs, since the beginning
        self._training = 0.0  # seconds that these took, one after another
        self._told: set[int] = set()  # whose they were
        self._first: float | None = None  # when the first of them began
        self._front = (0, 0)  # full-length trials, and how many of these no other beats
        self._events = 0
        self.refresh()

    def see(self, event: Event) -> None:
        """Takes one event in."""
        self._events += 1
        row = self.rows.setdefault(event.number, Row("WAITING", event.config.epochs))
        row.length, row.touched = event.config.epochs, self._events
        if event.kind == "started":
            row.state = "RUNNING"
        elif event.kind == "given back":
            row.state = "WAITING"
        elif event.kind == "epoch" and event.report is not None:
            # A trial that goes on gives its earlier reports again; they took no time now.
            if event.report.epoch > row.epochs:
                self._trained += 1
                self._told.add(event.number)
                self._training += event.report.seconds
                if self._first is None:
                    self._first = self.seconds - event.report.seconds
            if event.report.exits and event.report.epoch >= row.epochs:
                row.report = event.report
            row.epochs = max(row.epochs, event.report.epoch)
        elif event.kind == "ended":
            row.state, row.reason = event.state or "FAIL", event.reason
            self.refresh()

    def refresh(self) -> None:
        """Takes over what the study knows, other drivers' trials too."""
        for outcome in self._read():
            row = self.rows.setdefault(outcome.number, Row("WAITING", self.plan.base.epochs))
            row.state, row.value, row.params = outcome.state, outcome.value, outcome.params
            row.reason, row.diverged = outcome.reason, outcome.diverged
            row.run_on = outcome.run_on
            row.epochs = max(row.epochs, outcome.epochs)
            row.report = outcome.report or row.report
            if outcome.config is not None:
                row.length = outcome.config.epochs

    @property
    def counts(self) -> dict[str, int]:
        """State -> number of trials; what the study has not made yet is waiting."""
        found = Counter(row.state for row in self.rows.values())
        found["WAITING"] += max(0, self.plan.trials - len(self.rows))
        return dict(found)

    @property
    def states(self) -> str:
        """`12 complete, 1 running, 2 waiting`."""
        names = [state_name(row.state, row.diverged) for row in self.rows.values()]
        unmade = max(0, self.plan.trials - len(self.rows))
        return counted([*names, *[STATES["WAITING"]] * unmade])

    @property
    def over(self) -> int:
        """Trials that have ended, in whatever way."""
        return sum(self.counts.get(state, 0) for state in ENDED)

    @property
    def kind(self) -> str:
        """What this study calls its trials: those of a confirmation are runs of a search's."""
        repeats = self.plan.experiment or self.plan.confirms or self.plan.calibrates
        return "run" if repeats else "trial"

    @property
    def best(self) -> tuple[int, Row] | None:
        """The best trial of full length so far; None where configs are run again and compared."""
        if self.kind == "run":
            return None
        complete = [
            (number, row)
            for number, row in self.rows.items()
            if row.state == "COMPLETE" and row.value is not None
        ]
        return max(complete, key=lambda item: (item[1].value or 0.0, -item[0]), default=None)

    @property
    def front(self) -> int | None:
        """Networks that no other beats as a whole; None where one number is maximised."""
        if not is_front(self.plan.objective):
            return None
        curves = {
            number: curve(number, row.report.exits)
            for number, row in self.rows.items()
            if row.state == "COMPLETE" and row.report is not None
        }
        if len(curves) != self._front[0]:  # full-length trials stay as they are
            self._front = len(curves), len(deployable(curves))
        return self._front[1]

    @property
    def spent(self) -> int:
        """Epochs trained in this study."""
        return sum(row.epochs for row in self.rows.values())

    @property
    def saved(self) -> int:
        """Epochs that stopped trials were spared."""
        return sum(
            row.length - row.epochs
            for row in self.rows.values()
            if row.state == "PRUNED" and not row.diverged
        )

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._begin

    @property
    def left(self) -> float | None:
        """Seconds, from the pace so far and the mean length of ended trials; None: unknown.

        The pace is that since the first epoch began, which what starts before says nothing of; as
        long as not every worker has told of one, that of the workers that have.
        """
        if self._first is None:
            return None
        ended = [row.epochs for row in self.rows.values() if row.state in ENDED]
        usual = sum(ended) / len(ended) if ended else float(self.plan.base.epochs)
        begun = [r for r in self.rows.values() if r.state not in ENDED]
        epochs = sum(max(usual - row.epochs, 0.0) for row in begun)
        epochs += usual * max(0, self.plan.trials - len(self.rows))
        workers = min(self.plan.workers, len(begun) + max(0, self.plan.trials - len(self.rows)))
        if len(self._told) < min(workers, len(begun)):
            pace = self._training / self._trained / workers
        else:
            pace = (self.seconds - self._first) / self._trained
        return epochs * pace

    def summary(self) -> str:
        """`5 of 30 trials done; best 91.23 % (trial 2); about 40 s left`.

        Of a search for the front also `3 on the front`; of any other study than a search it speaks
        of `runs`.
        """
        parts = [f"{self.over} of {self.plan.trials} {self.kind}s done"]
        if self.best is not None:
            number, row = self.best
            parts.append(f"best {self.value(row)} ({self.kind} {number})")
        if self.front:
            parts.append(f"{self.front} on the front")
        if self.left and self.over < self.plan.trials:
            parts.append(f"about {duration(self.left)} left")
        return "; ".join(parts)

    def value(self, row: Row) -> str:
        """The objective of a trial, or nothing."""
        return "" if row.value is None else value_text(self.plan.objective, row.value)


def accuracies(row: Row) -> str:
    """`80.1 88.2 90.0 91.0 %`, shallow first."""
    if row.report is None:
        return ""
    return " ".join(f"{100 * value:.1f}" for value in row.report.accuracies) + " %"


class Lines:
    """A line for each trial that ends, and now and then one for an epoch."""

    def __init__(self, progress: Progress, stderr: bool = False) -> None:
        self._progress = progress
        self._stderr = stderr
        self._last = float("-inf")

    def see(self, event: Event) -> None:
        """Prints what there is to say about an event."""
        self._progress.see(event)
        row = self._progress.rows[event.number]
        now = self._progress.seconds
        if event.kind == "ended":
            self._print(self._ended(event.number, row))
        elif event.kind == "given back":
            self._print(f"{self._progress.kind} {event.number} given back after epoch {row.epochs}")
        elif event.report is not None and now - self._last >= LINE_EVERY:
            if event.report.epoch < row.epochs:
                return  # of a trial that goes on: it was told when it was trained
            # an experiment's accuracies may wait for the end
            said = [f"exits {accuracies(row)}"] if event.report.exits else []
            loss = event.report.loss
            said += [] if loss is None else [f"loss {loss:.3f}"]
            name = f"{self._progress.kind} {event.number}"
            text = f"{name} epoch {row.epochs} of {row.length}"
            text += f": {', '.join(said)}" if said else ""
            self._print(f"{text}; {self._progress.summary()}")

    def _ended(self, number: int, row: Row) -> str:
        state = state_name(row.state, row.diverged)
        text = f"{self._progress.kind} {number} {state}"
        if row.state == "FAIL":
            text += f": {row.reason or 'no reason given'}"
        else:
            chosen = f", {setting(row.params)}" if row.params else ""
            where = f"{row.epochs}" if row.run_on is None else f"{row.run_on}, and ran on"
            text += f" after epoch {where}: {self._progress.value(row)}"
            text += f" (exits {accuracies(row)}{chosen})" if row.report else chosen
        return f"{text}; {self._progress.summary()}"

    def _print(self, text: str) -> None:
        self._last = self._progress.seconds
        # A reader that has gone must not fail the trial: the search goes on, the study has it all.
        with suppress(OSError):
            stream = console(self._stderr)
            stream.print(clean(text))
            stream.file.flush()


class LiveTable:
    """The table that renews itself on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()  # rich draws in a thread of its own

    def see(self, event: Event) -> None:
        """Takes an event in; it is shown with the next drawing."""
        with self._lock:
            self._progress.see(event)

    def draw(self) -> Group:
        """What is on the screen."""
        progress = self._progress
        with self._lock:
            best = progress.best
            of = f"{progress.plan.trials} {progress.kind}s"
            lines = [f"{progress.plan.study}: {progress.states} of {of}"]
            if best is not None:
                number, row = best
                name = objective_name(progress.plan.objective)
                chosen = f" ({setting(row.params)})" if row.params else ""
                lines.append(f"best {name} {progress.value(row)}, trial {number}{chosen}")
            if progress.front:
                lines.append(f"on the front: {progress.front} networks")
            epochs = f"epochs: {progress.spent:,} trained"
            if progress.plan.early_stopping:
                epochs += f", {progress.saved:,} saved by early stopping"
            left = progress.left
            epochs += f"; {duration(progress.seconds)} so far"
            epochs += f", about {duration(left)} left" if left else ""
            latest = sorted(progress.rows.items(), key=lambda item: -item[1].touched)
            shown = sorted((n, row) for n, row in latest[:SHOWN] if row.touched)
            rows = [
                (
                    number,
                    state_name(row.state, row.diverged),
                    f"{row.epochs}/{row.length}",
                    accuracies(row),
                    progress.value(row) if row.state in ENDED else "",
                    row.reason if row.state == "FAIL" else setting(row.params),
                )
                for number, row in shown
            ]
        head = (progress.kind, "state", "epoch", "accuracy per exit", "objective", "setting")
        return Group(
            Fitted(head, rows, stack=False),
            *(Text(clean(x).plain, no_wrap=False, overflow="fold") for x in (*lines, epochs)),
        )


@contextmanager
def watched(
    progress: Progress, *, quiet: bool = False, stderr: bool = False
) -> Iterator[Callable[[Event], None]]:
    """Where a driver sends its events, for as long as it runs.

    Args:
        progress: Of the search.
        quiet: Nothing is printed.
        stderr: Print there, because stdout is for JSON.
    """
    screen: Console = console(stderr)
    if quiet:
        yield progress.see
    elif not screen.is_terminal:
        yield Lines(progress, stderr).see
    else:
        live = LiveTable(progress)
        with Live(get_renderable=live.draw, console=screen, refresh_per_second=4):
            yield live.see
