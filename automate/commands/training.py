"""`automate train`: an exported config in full, with several seeds."""

import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from automate import flags
from automate.printing import command, say, say_error, say_json, say_table

if TYPE_CHECKING:
    from studies.final import FinalSummary
    from trainers.reports import EpochReport

LINE_EVERY = 10.0  # seconds between two lines of progress


def train(
    file: Path,
    /,
    *,
    seeds: flags.Whole = 3,
    keep_validation: flags.Switch = False,
    data_root: flags.DataRoot = None,
    device: str | None = None,
    threads: flags.WholeOrNone = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> int:
    """Train an exported config in full, with several seeds.

    To the last epoch, on the hold-out too; then the test images are read, once a seed. The same
    command again goes on from its checkpoints.

    Args:
        file: From `automate export`.
        seeds: How many fresh seeds.
        keep_validation: Leave the hold-out untrained, for thresholds of dynamic inference.
        device: cpu or cuda [default: cuda where there is one].
        threads: CPU threads [default: the faster of 1 and all].
    """
    from automate.main import heed_signals
    from studies.export import edited, read_exported
    from studies.final import train_finals
    from studies.verdict import count_text

    config, source = read_exported(file)
    title = (
        f"{file}: {config.backbone} on {config.dataset}, {config.scheme}, "
        f"{count_text(config.epochs, 'epoch')}, {count_text(seeds, 'seed')}"
    )
    watch = _Lines(title, config.epochs, stderr=json)

    for field in edited(config, source):
        now = f"has changed since the search of {file}: training takes it as it is now"
        say_error(f"{getattr(config, field)} {now}")

    def on_report(seed: int, report: "EpochReport") -> None:
        if not quiet:
            watch.see(seed, report)
        heed_signals()

    summary = train_finals(
        file,
        seeds=seeds,
        keep_validation=keep_validation,
        data_root=data_root,
        device=device,
        threads=threads,
        on_report=on_report,
    )
    if summary.diverged:
        listed = ", ".join(map(str, summary.diverged))
        say_error(f"the loss of seed {listed} was not finite: it does not count, take a lower lr")
    if json:
        say_json(asdict(summary))
    else:
        _say_summary(summary)
    return 0 if summary.exits else 1


class _Lines:
    """What is trained, a line now and then, and one at the end of each seed."""

    def __init__(self, title: str, epochs: int, stderr: bool) -> None:
        self._title = title
        self._epochs = epochs
        self._stderr = stderr
        self._last = time.monotonic()  # reports of a run that goes on are there at once: no news

    def see(self, seed: int, report: "EpochReport") -> None:
        """Takes the report of an epoch."""
        over = report.epoch == self._epochs
        if not over and time.monotonic() - self._last < LINE_EVERY:
            return
        self._last = time.monotonic()
        text, self._title = f"{self._title}\n" if self._title else "", ""
        text += f"seed {seed} epoch {report.epoch} of {self._epochs}"
        text += "" if report.loss is None else f": loss {report.loss:.3f}"
        if report.exits:
            shown = " ".join(f"{100 * value:.2f}" for value in report.accuracies)
            text += f", test accuracy per exit {shown} %"
        with suppress(OSError):  # a reader that has gone does not stop the training
            say(text, stderr=self._stderr)


def _say_summary(summary: "FinalSummary") -> None:
    n, fives = len(summary.seeds), summary.config.tells_top5
    rows = [
        (
            str(row.exit),
            f"{row.flops / 1e6:.3f}",
            spread_text(row.mean, row.std),
            *[spread_text(row.top5, row.top5_std)] * fives,
        )
        for row in summary.exits
    ]
    spread = f"mean ± std of n = {n} seeds" if n > 1 else "n = 1, unconfirmed"
    if rows:
        say_table(
            ("exit", "MFLOPs", "top-1", *["top-5"] * fives),
            rows,
            title=f"Test accuracy, {spread}, trained on {summary.trained_on}",
        )
    say(f"Weights and summary: {summary.folder}")
    if n:
        run = summary.folder / f"seed-{summary.seeds[0]}"
        say(f"In Python: from trainers.trained import load; load({str(run)!r})")
        say("Next:")
        say(f"  {command('evaluate', summary.folder)}")
        if summary.config.channels == 3:
            say(f"  {command('predict', run)} photo.jpg")


def spread_text(mean: float, std: float | None) -> str:
    """`91.61 ± 0.86 %`; without the spread of one seed."""
    return f"{100 * mean:.2f} %" if std is None else f"{100 * mean:.2f} ± {100 * std:.2f} %"
