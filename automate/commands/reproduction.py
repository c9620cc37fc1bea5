"""`automate reproduce`: an experiment of the paper, and ours beside its figures."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from automate import flags
from automate.config_flags import ExperimentConfig
from automate.driving import as_stored, drive_shown, left
from automate.printing import command, duration, say, say_json, say_pairs, say_table
from studies.plan import StudyPlan
from trainers.catalog import InputError

if TYPE_CHECKING:
    from studies.record import StudyRecord
    from studies.search import Estimate

Names = Annotated[
    tuple[str, ...],
    Parameter(consume_multiple=True, negative_iterable=(), show_default=False),
]


def reproduce(
    name: str | None = None,
    /,
    *,
    listed: Annotated[flags.Switch, Parameter(name="--list", help="List the experiments.")] = False,
    dataset: Annotated[Names, Parameter(name="--dataset")] = (),
    backbone: Annotated[Names, Parameter(name="--backbone")] = (),
    seeds: flags.WholeOrNone = None,
    only: Annotated[Names, Parameter(name="--only")] = (),
    rule: Literal["last", "paper"] = "last",
    rounds: flags.Whole = 5,
    study: str | None = None,
    running: flags.Running = flags.USUAL,
    config: ExperimentConfig = None,
) -> int:
    """Run an experiment of the paper; ours beside it.

    The same command again goes on. Each is a study a network and data set: every arm with every
    seed, none stopped early, on all training images, scored on the test images. --epochs,
    --limit-train, --width, --seeds and another --dataset or --backbone shrink it, and the report
    says so.

    Args:
        name: Of the experiment, e.g. table2; see --list.
        dataset: One or several, or all of the paper's [default: the paper's first].
        backbone: One or several, or all of the paper's [default: the paper's first].
        seeds: Runs of each arm [default: the study's own where it goes on, else the paper's 3].
        only: Arms to run, by the names that --dry-run shows [default: all].
        rule: Figures of the last epoch, or, as in the paper, of the epoch with the best last-exit
            test accuracy, which selects on the test set and is marked so.
        rounds: How often cost measures each method.
        study: Name of the study [default: <dataset>-<backbone>-<experiment>].
    """
    from studies.experiments import EXPERIMENTS, settled, trains

    if listed:
        _list(running.json)
        return 0
    if name is None:
        raise InputError(f"name an experiment of the paper: {', '.join(EXPERIMENTS)} (or --list)")
    storage, runs, json, quiet = running.storage, running.runs, running.json, running.quiet
    settings: dict[str, Any] = dict(config or {})
    name = settled(name)
    if name == "table1":
        return _table1(dataset, backbone, settings, runs, running.dry_run, json)
    if not trains(name):
        if rounds < 1:
            raise InputError(f"rounds needs to be at least 1, got {rounds}")
        machine = {"device": running.device, "threads": running.threads, "rounds": rounds}
        return _cost(dataset, backbone, only, settings, machine, runs, running.dry_run, json)
    from studies.limits import Limits
    from studies.record import StudyRecord
    from studies.reproduce import plans
    from studies.storage import place
    from trainers.data import check

    explicit = running.explicit(settings)
    limits = Limits(running.timeout, running.max_epochs_total)
    began = time.monotonic()
    asked = plans(
        name, datasets=dataset, backbones=backbone, seeds=seeds, only=only or None, rule=rule,
        study=study, data_root=running.data_root, **running.machine, **settings,
    )  # fmt: skip
    todo = []
    for plan in asked:  # whatever is wrong with any of them is said before the first is trained
        outcomes = None
        if not running.fresh:
            plan, outcomes = as_stored(plan, storage, runs, explicit, keep_trials=seeds is None)
        cost = left(plan, outcomes or [], running.ray_address)
        check(plan.base, plan.data_root, test=cost is not None)
        todo.append((plan, cost))
        if not quiet:
            label = place(storage, runs, plan.study).label
            say_pairs(_pairs(plan, label, cost, outcomes is not None), stderr=json)
            say(stderr=json)
    if running.dry_run:
        if json:
            say_json([{"plan": plan, "left": cost and cost.epochs} for plan, cost in todo])
        return 0
    for plan, cost in todo:
        if cost is not None:
            record = StudyRecord.create_or_open(plan, storage, runs, running.fresh, explicit)
            with closing(record):
                now = limits.after(time.monotonic() - began)
                drive_shown(record, running.ray_address, now, quiet=quiet, json=json)
    with ExitStack() as stack:
        records = [
            stack.enter_context(closing(StudyRecord.open(plan.study, storage, runs)))
            for plan, _ in todo
        ]
        return _ending(name, records, running)


def _list(json: bool) -> None:
    from studies.experiments import EXPERIMENTS

    if json:
        say_json(
            [
                {
                    "name": name,
                    "place": row.place,
                    "title": row.title,
                    "datasets": row.datasets,
                    "backbones": row.backbones,
                }
                for name, row in EXPERIMENTS.items()
            ]
        )
        return
    rows = [
        (name, row.place, row.title, ", ".join(row.datasets), ", ".join(row.backbones))
        for name, row in EXPERIMENTS.items()
    ]
    say_table(("experiment", "in the paper", "what it is", "data sets", "networks"), rows)


def _pairs(
    plan: StudyPlan, storage: str, cost: "Estimate | None", goes_on: bool
) -> dict[str, object]:
    """A plan in words."""
    from automate.plan_text import machine_text, network_text, training_text
    from studies.experiments import arms_of, experiment_named
    from studies.measured import shrunk
    from studies.verdict import count_text

    name = plan.experiment or ""
    row = experiment_named(name)
    arms = arms_of(name, plan.base, plan.only)
    seeds = plan.trials / len(arms)
    base = plan.base
    pairs: dict[str, object] = {
        "study": plan.study,
        "stored in": storage,
        "experiment": f"{name} ({row.place}): {row.title}",
        "runs": f"{plan.trials}: {len(arms)} arms, seeds of each: {seeds:g}, from {base.seed}",
        "arms": ", ".join(arm.key for arm in arms),
        "network": network_text(plan),
        "training": training_text(base),
        "runs on": machine_text(plan),
        "test images": "read after every epoch" if plan.each_epoch else "read after the last epoch",
    }
    if plan.rule == "paper":
        pairs["rule"] = "the paper's: the best last-exit test epoch, which selects on the test set"
    if smaller := shrunk(plan):
        pairs["not as the paper's"] = "; ".join(smaller)
    if goes_on:
        pairs["goes on"] = "with what is stored"
    if cost is not None:
        pairs["left"] = f"{count_text(cost.epochs, 'epoch')}, about {duration(cost.seconds)}"
    return pairs


def _ending(
    name: str,
    records: "Sequence[StudyRecord]",
    running: flags.Running,
) -> int:
    """The cells, the report, and how to make it again. 1 if no run came to its end."""
    from automate.experiment_text import experiment_json, say_experiment
    from studies.measured import measure
    from studies.report import write_report
    from studies.view import look

    runs, json = running.runs, running.json
    home = runs / records[0].name / "report.html" if len(records) == 1 else runs / f"{name}.html"
    write_report(records, home)
    measured = [measure(look(record)) for record in records]
    good = any(runs_of for one in measured for runs_of in one.runs.values())
    if json:
        say_json({"report": home, "studies": [experiment_json(one) for one in measured]})
        return 0 if good else 1
    say_experiment(measured)
    say(f"Report: {home}")
    if not running.quiet:
        tail = running.tail(*(record.name for record in records))
        say("Next:")
        say(f"  {command('report', *tail)}")
    return 0 if good else 1


def _table1(
    dataset: Sequence[str],
    backbone: Sequence[str],
    settings: dict[str, Any],
    runs: Path,
    dry_run: bool,
    json: bool,
) -> int:
    from studies.cost_sections import agreement, table1_page, table1_rows
    from studies.page import write
    from studies.reproduce import counted, table1_bases

    bases = table1_bases(dataset, backbone, **settings)
    if dry_run:
        for base in bases:
            say(f"FLOPs of {base.backbone} on {base.dataset}, exit by exit", stderr=json)
        return 0
    found = counted(bases)
    path = runs / "table1.html"
    write(path, table1_page(found))
    rows = table1_rows(found)
    if json:
        made = [{"network": name, "flops": ours, "paper": paper} for name, ours, paper in rows]
        say_json({"report": path, "rows": made})
        return 0
    exits = max(len(ours) for _, ours, _ in rows)
    lines = []
    for name, ours, paper in rows:
        lines.append((name, *(f"{x / 1e6:.2f}" for x in ours), *[""] * (exits - len(ours))))
        lines.append(("  the paper", *paper, *[""] * (exits - len(paper))))
    say_table(("MFLOPs", *(f"exit {i + 1}" for i in range(exits))), lines)
    say(agreement(rows))
    say(f"Report: {path}")
    return 0


def _cost(
    dataset: Sequence[str],
    backbone: Sequence[str],
    only: Sequence[str],
    settings: dict[str, Any],
    machine: dict[str, Any],
    runs: Path,
    dry_run: bool,
    json: bool,
) -> int:
    from dataclasses import asdict

    import torch

    from studies.cost_sections import cost_page, ratio_text, ratios
    from studies.experiments import arms_of
    from studies.page import write
    from studies.plan import default_study_name
    from studies.reproduce import bases, footprints_of

    every = bases("cost", dataset, backbone, **settings)
    if dry_run:
        for base in every:
            keys = [arm.key for arm in arms_of("cost", base, only or None)]
            say(f"cost of {base.backbone} on {base.dataset}: {', '.join(keys)}", stderr=json)
        return 0
    made = []
    for base in every:
        device, found = footprints_of(base, only=only or None, **machine)
        arms = [arm for arm in arms_of("cost", base) if arm.key in found]
        threads = machine["threads"] or torch.get_num_threads()
        path = runs / f"{default_study_name(base, 'cost')}.html"
        write(path, cost_page(base, arms, device, threads, found))
        made.append({"report": path, "device": device, "footprints": {
            key: [asdict(one) for one in rounds] for key, rounds in found.items()
        }})  # fmt: skip
        if json:
            continue
        kinds = ("seconds", "peak", "saved")
        cost = [ratios(found, kind) for kind in kinds]
        rows = [(a.label, *(ratio_text(kind.get(a.key, [])) for kind in cost)) for a in arms]
        head = ("over BranchyNet's", "time of a step", "peak memory", "kept for backward")
        say_table(head, rows, title=f"{base.backbone} on {base.dataset}, {device}")
        say(f"Report: {path}")
    if json:
        say_json(made)
    return 0
