"""How a search is told, from events alone."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from automate import progress as shown
from automate.progress import Lines, LiveTable, Progress, watched
from studies.plan import StudyPlan
from studies.states import Outcome
from studies.trial import Event
from tests.studies import made_up
from trainers.config import TrialConfig
from trainers.reports import EpochReport


class Study:
    """A study's trials and a clock, both set by hand."""

    def __init__(self, **plan: Any) -> None:
        self.plan: StudyPlan = made_up.plan(trials=4, **plan)
        self.outcomes: list[Outcome] = []
        self.now = 0.0
        self.progress = Progress(self.plan, lambda: self.outcomes, lambda: self.now)

    @property
    def config(self) -> TrialConfig:
        return self.plan.base

    def started(self, number: int) -> Event:
        return Event("started", number, self.config)

    def epoch(self, number: int, epoch: int, seconds: float = 0.5) -> Event:
        report = self.report(epoch).model_copy(update={"seconds": seconds})
        return Event("epoch", number, self.config, report)

    def report(self, epoch: int) -> EpochReport:
        return made_up.report(self.config, epoch, [0.5, 0.6, 0.7, 0.8])

    def ended(self, number: int, state: str, epochs: int, **fields: Any) -> Event:
        """The event, and what the study then says of the trial."""
        made = {"config": self.config, "epochs": epochs, "params": {"alpha": 3.0}}
        made["report"] = self.report(epochs) if epochs else None
        self.outcomes.append(made_up.outcome(number, state, **{**made, **fields}))
        return Event("ended", number, self.config, state=state, reason=fields.get("reason"))


def test_counts_epochs_and_what_was_saved():
    study = Study()
    assert study.progress.counts["WAITING"] == 4
    assert study.progress.left is None
    for event in (study.started(0), study.epoch(0, 1), study.epoch(0, 2), study.started(1)):
        study.progress.see(event)
    assert study.progress.counts == {"RUNNING": 2, "WAITING": 2}
    assert study.progress.spent == 2
    study.progress.see(study.ended(0, "COMPLETE", 30, value=0.65))
    study.progress.see(study.epoch(1, 1))
    study.progress.see(study.ended(1, "PRUNED", 10, value=0.5))
    assert study.progress.counts == {"COMPLETE": 1, "PRUNED": 1, "WAITING": 2}
    assert study.progress.over == 2
    assert study.progress.spent == 40
    assert study.progress.saved == 20


def test_a_diverged_trial_saves_nothing():
    study = Study()
    study.progress.see(study.started(0))
    study.progress.see(study.ended(0, "PRUNED", 10, value=0.01, diverged=True, reason="diverged"))
    assert study.progress.saved == 0


def test_a_confirmation_and_a_calibration_have_runs_and_no_best_of_one():
    for space in ("confirm:searched", "calibrate:single_alpha"):
        study = Study()
        study.progress.plan = study.plan.model_copy(update={"space": space})
        study.progress.see(study.epoch(0, 30))
        study.now = 3.0
        study.progress.see(study.ended(0, "COMPLETE", 30, value=0.6))
        assert study.progress.best is None
        assert study.progress.summary().startswith("1 of 4 runs done")


def test_best_is_the_highest_full_length_value_and_of_equal_ones_the_first():
    study = Study()
    assert study.progress.best is None
    for number, state, value in (
        (0, "COMPLETE", 0.6),
        (1, "COMPLETE", 0.7),
        (2, "COMPLETE", 0.7),
        (3, "PRUNED", 0.9),
    ):
        study.progress.see(study.ended(number, state, 30, value=value))
    best = study.progress.best
    assert best is not None
    assert best[0] == 1


def test_time_left_goes_by_the_pace_and_the_usual_length():
    study = Study()
    study.now = 100.0  # what came before the first epoch
    study.progress.see(study.started(0))
    for epoch in range(1, 11):
        study.now += 2.0
        study.progress.see(study.epoch(0, epoch, seconds=1.9))
    # nothing has ended: 20 more epochs here and 90 of the waiting trials, 2 s each
    assert study.progress.left == pytest.approx(220.0, rel=0.01)
    study.progress.see(study.ended(0, "PRUNED", 10, value=0.5))
    # three more trials of 10 epochs
    assert study.progress.left == pytest.approx(60.0, rel=0.01)


def test_the_first_report_of_several_workers_speaks_for_all():
    study = Study(workers=4)
    for number in range(4):
        study.progress.see(study.started(number))
    study.now = 30.0  # of which the workers took 27 to start
    study.progress.see(study.epoch(0, 1, seconds=3.0))
    assert study.progress.left == pytest.approx((29 + 3 * 30) * 3.0 / 4)
    for number in range(1, 4):
        study.progress.see(study.epoch(number, 1, seconds=3.0))
    assert study.progress.left == pytest.approx(4 * 29 * 3.0 / 4)


def test_reports_given_again_by_a_trial_that_goes_on_take_no_time():
    study = Study()
    study.outcomes.append(
        made_up.outcome(0, "WAITING", config=study.config, epochs=20, report=study.report(20))
    )
    study.progress = Progress(study.plan, lambda: study.outcomes, lambda: study.now)
    study.progress.see(study.started(0))
    for epoch in range(1, 21):
        study.progress.see(study.epoch(0, epoch))
    assert study.progress.spent == 20
    assert study.progress.left is None
    study.now = 3.0
    study.progress.see(study.epoch(0, 21, seconds=3.0))
    assert study.progress.left == pytest.approx(3.0 * (9 + 90))


def test_lines_tell_each_end_and_the_first_epoch(capsys):
    study = Study()
    lines = Lines(study.progress)
    lines.see(study.started(0))
    for epoch in range(1, 30):
        lines.see(study.epoch(0, epoch))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("trial 0 epoch 1 of 30: exits 50.0 60.0 70.0 80.0 %, loss 2.000")
    study.now = 1 + shown.LINE_EVERY
    lines.see(study.epoch(0, 30))
    assert "epoch 30 of 30" in capsys.readouterr().out
    lines.see(study.ended(0, "COMPLETE", 30, value=0.65))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith(
        "trial 0 complete after epoch 30: 65.00 % (exits 50.0 60.0 70.0 80.0 %, alpha = 3); "
        "1 of 4 trials done; best 65.00 % (trial 0); about "
    )


def test_what_a_trial_tells_again_when_it_goes_on_is_not_told_as_new(capsys):
    study = Study()
    for epoch in range(1, 5):
        study.progress.see(study.epoch(0, epoch))
    last = study.progress.rows[0].report
    lines = Lines(study.progress)
    for epoch in range(1, 4):
        lines.see(study.epoch(0, epoch))
    assert capsys.readouterr().out == "" and study.progress.rows[0].report is last
    lines.see(study.epoch(0, 5))
    assert "epoch 5 of 30" in capsys.readouterr().out
    assert study.progress.rows[0].report is not last


def test_lines_tell_failures_divergence_and_what_was_given_back(capsys):
    study = Study()
    lines = Lines(study.progress, stderr=True)
    lines.see(study.started(0))
    lines.see(study.ended(0, "FAIL", 0, reason="OSError: [red]disk"))
    lines.see(study.started(1))
    lines.see(study.ended(1, "PRUNED", 2, value=0.01, diverged=True, reason="diverged"))
    lines.see(study.started(2))
    lines.see(Event("given back", 2, study.config))
    out, err = capsys.readouterr()
    assert out == ""
    said = err.splitlines()
    assert said[0].startswith("trial 0 failed: OSError: [red]disk; 1 of 4 trials done")
    assert said[1].startswith("trial 1 diverged after epoch 2: 1.00 %")
    assert said[2] == "trial 2 given back after epoch 0"


def test_a_reader_that_has_gone_does_not_fail_the_trial(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    study = Study()
    lines = Lines(study.progress)
    lines.see(study.started(0))
    lines.see(study.epoch(0, 1))
    lines.see(study.ended(0, "COMPLETE", 30, value=0.5))
    assert study.progress.over == 1


def drawn(live: LiveTable) -> str:
    screen = Console(file=io.StringIO(), width=150)
    screen.print(live.draw())
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_live_table_shows_trials_best_epochs_and_time():
    study = Study()
    live = LiveTable(study.progress)
    assert "4 waiting of 4 trials" in drawn(live)
    live.see(study.started(0))
    live.see(study.ended(0, "COMPLETE", 30, value=0.65))
    live.see(study.started(1))
    live.see(study.epoch(1, 1))
    live.see(study.ended(1, "PRUNED", 10, value=0.4))
    live.see(study.started(2))
    live.see(study.ended(2, "FAIL", 0, reason="[bold]boom[/bold]"))
    live.see(study.started(3))
    live.see(study.epoch(3, 7))
    study.now = 65.0
    text = drawn(live)
    assert "1 complete, 1 stopped early, 1 failed, 1 running of 4 trials" in text
    assert "best anytime accuracy 65.00 %, trial 0 (alpha = 3)" in text
    assert "47 trained, 20 saved by early stopping; 1 min 5 s so far, about " in text
    assert "[bold]boom[/bold]" in text
    assert "7/30   50.0 60.0 70.0 80.0 %" in text


def test_lines_below_the_live_table_wrap_on_a_narrow_terminal(monkeypatch):
    study = Study()
    screen = Console(file=io.StringIO(), force_terminal=True, width=50, soft_wrap=True)
    monkeypatch.setattr(shown, "console", lambda stderr=False: screen)
    with watched(study.progress) as see:
        see(study.started(0))
        see(study.epoch(0, 3))
        study.now = 65.0
    assert isinstance(screen.file, io.StringIO)
    drawn = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.file.getvalue()).splitlines()
    assert any("so far" in line for line in drawn) and any("left" in line for line in drawn)
    assert max(len(line.rstrip()) for line in drawn) <= 50


def test_the_live_table_counts_diverged_trials_as_such():
    study = Study()
    live = LiveTable(study.progress)
    live.see(study.started(0))
    live.see(study.ended(0, "PRUNED", 1, value=0.1, diverged=True))
    assert "1 diverged, 3 waiting of 4 trials" in drawn(live)


def test_live_table_shows_only_the_latest_trials():
    study = Study()
    study.plan = study.plan.with_(trials=50)
    study.progress = Progress(study.plan, lambda: study.outcomes, lambda: study.now)
    live = LiveTable(study.progress)
    for number in range(40):
        live.see(study.started(number))
    rows = [line for line in drawn(live).splitlines() if "running" in line and "/30" in line]
    assert [int(row.split()[0]) for row in rows] == list(range(40 - shown.SHOWN, 40))


def test_what_is_watched_depends_on_where_it_is_printed(capsys, monkeypatch):
    study = Study()
    with watched(study.progress, quiet=True) as see:
        see(study.started(0))
        see(study.epoch(0, 1))
    with watched(study.progress, stderr=True) as see:
        see(study.epoch(0, 2))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("trial 0 epoch 2 of 30")
    assert err.count("\n") == 1
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(shown, "console", lambda stderr=False: screen)
    with watched(study.progress) as see:
        see(study.epoch(0, 3))
    assert isinstance(screen.file, io.StringIO)
    assert "3/30" in screen.file.getvalue()
