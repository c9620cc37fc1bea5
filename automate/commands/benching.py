"""`automate bench`: what this machine reaches, and by which path."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from automate import flags
from automate.bench_text import say_rows
from automate.printing import patience, say_json
from trainers.catalog import InputError, unknown

if TYPE_CHECKING:
    from trainers.rounds import Row

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
    says how many rounds count. Ratios hold on a busy machine too, images/s do not. All of it takes
    some minutes.
    """
    from studies.machine import cores
    from trainers.bench import NETS, SHORT, loss_table, machine, path_table, step_table
    from trainers.pipeline import pipeline_table
    from trainers.teams import machine_table

    for part in parts:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    for net in nets:
        if net not in NETS:
            raise unknown("net", net, NETS)
    if rounds < 1:
        raise InputError(f"rounds needs to be at least 1, got {rounds}")
    parts, nets = parts or PARTS, nets or SHORT
    made: dict[str, list[Row]] = {"paths": path_table(nets)}
    if not json:
        say_rows(TITLES["paths"], made["paths"])
    for part in parts:
        with patience(f"Timing {part} ..."):
            if part == "step":
                made[part] = step_table(nets, rounds=rounds)
            elif part == "loss":
                made[part] = loss_table(rounds=rounds)
            elif part == "pipeline":
                made[part] = pipeline_table(rounds=rounds)
            else:
                made[part] = [row for net in nets for row in machine_table(net, cores(), rounds)]
        if not json:
            say_rows(TITLES[part], made[part])
    if json:
        rows = {part: [asdict(row) for row in found] for part, found in made.items()}
        say_json({"machine": machine(), **rows})
