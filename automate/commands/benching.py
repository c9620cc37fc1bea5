"""`automate bench`: what this machine reaches, and by which path."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from automate import flags
from automate.printing import say, say_json, say_table
from trainers.catalog import InputError, unknown

if TYPE_CHECKING:
    from trainers.bench import Row

PARTS = ("step", "loss", "pipeline", "processes")
TITLES = {  # what a table times; its absolute numbers are not to be compared with another's
    "paths": "paths: the precision that a search takes here, timed for a moment",
    "step": "step: training steps of MATE in one thread, and of other schemes in the faster "
    "precision; ratios to the first row of the same name",
    "loss": "loss: the loss alone, forward and backward, in one thread; ratios to the plain loops",
    "pipeline": "pipeline: augmented batches without a network; ratios to a DataLoader",
    "processes": "processes: whole trainings that share this machine; ratios to the plain trainer",
}


def bench(
    *,
    parts: Annotated[
        tuple[str, ...],
        Parameter(
            help=f"Of {', '.join(PARTS)} [default: all].",
            consume_multiple=True,
            negative_iterable=(),
            show_default=False,
        ),
    ] = (),
    nets: Annotated[
        tuple[str, ...],
        Parameter(
            help="Of digits, digits128, vgg16x0.25, vgg16, resnet18 [default: digits vgg16x0.25].",
            consume_multiple=True,
            negative_iterable=(),
            show_default=False,
        ),
    ] = (),
    rounds: Annotated[flags.Whole, Parameter(help="Interleaved rounds of each table.")] = 4,
    json: flags.Json = False,
) -> None:
    """Time this machine, and say which path a search takes.

    Ratios are against the plain trainer: eager fp32, a DataLoader over PIL images, the loss as a
    double loop. Each is the median of interleaved rounds, with the least and the greatest, and
    says how many rounds count. Ratios hold on a busy machine too, images/s do not.
    """
    from trainers.bench import NETS, SHORT, loss_table, step_table
    from trainers.pipeline import pipeline_table

    for part in parts:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    for net in nets:
        if net not in NETS:
            raise unknown("net", net, NETS)
    if rounds < 1:
        raise InputError(f"rounds needs to be at least 1, got {rounds}")
    parts, nets = parts or PARTS, nets or SHORT
    made: dict[str, list[Row]] = {"paths": paths(nets)}
    if not json:
        say_rows(TITLES["paths"], made["paths"])
    for part in parts:
        if part == "step":
            made[part] = step_table(nets, rounds=rounds)
        elif part == "loss":
            made[part] = loss_table(rounds=rounds)
        elif part == "pipeline":
            made[part] = pipeline_table(rounds=rounds)
        else:
            made[part] = [row for net in nets for row in processes(net, rounds)]
        if not json:
            say_rows(TITLES[part], made[part])
    if json:
        from trainers.bench import machine

        rows = {part: [asdict(row) for row in found] for part, found in made.items()}
        say_json({"machine": machine(), **rows})


def paths(nets: "Sequence[str]") -> "list[Row]":
    """The precision that a search of each net takes here, and its share of the matrix peak."""
    from trainers.bench import NETS, Row, peak, step_flops
    from trainers.config import TrialConfig
    from trainers.speed import precisions

    rows = []
    for net in nets:
        config = TrialConfig(**NETS[net])
        speeds = precisions(config)
        best = max(speeds, key=lambda name: speeds[name])
        share = speeds[best] * step_flops(config) / peak(best)
        note = f"{100 * share:.1f} % of the {best} matrix peak of a core"
        if not speeds["bf16"]:
            note += "; bf16 does not compute the same here"
        ratio = speeds[best] / speeds["fp32"]
        rows.append(Row(net, best, speeds[best], "images/s", ratio, ratio, ratio, note=note))
    return rows


def best_precision(net: str) -> str:
    """The faster one here, measured."""
    from trainers.bench import NETS
    from trainers.config import TrialConfig
    from trainers.speed import precisions

    speeds = precisions(TrialConfig(**NETS[net]))
    return max(speeds, key=lambda name: speeds[name])


def processes(net: str, rounds: int, seconds: float = 2.0) -> "list[Row]":
    """The plain trainer and ours, as one process and as a process a core, in the best precision."""
    from studies.machine import cores
    from trainers.teams import Team, team_table

    best, number = best_precision(net), cores()
    teams = [
        Team(f"plain, 1 x {number}", 1, number, plain=True),
        Team(f"plain, {number} x 1", number, 1, plain=True),
        Team(f"{best}, 1 x {number}", 1, number, best),
        Team(f"{best}, {number} x 1", number, 1, best),
    ]
    return team_table(net, teams, rounds=rounds, seconds=seconds)


def say_rows(title: str, rows: "Sequence[Row]") -> None:
    """A table of rows."""
    dropped = sum(row.dropped for row in rows)
    lines = [
        (
            row.what,
            row.side,
            f"{row.value:,.4g}" if row.value < 100 else f"{row.value:,.0f}",
            row.unit,
            "" if row.ratio is None else f"x{row.ratio:.2f}",
            "" if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}",
            f"{row.rounds}",
            row.note,
        )
        for row in rows
    ]
    if not any(row.note for row in rows):
        lines = [line[:-1] for line in lines]  # type: ignore[misc]
    heads = ("what", "way", "value", "unit", "ratio", "least to greatest", "rounds", "note")
    say_table(heads[: len(lines[0])], lines, title=title)
    if dropped:
        say(f"Rounds left out, as other processes used the machine: {dropped}.")
