"""`automate calibrate`: when early stopping is right."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from automate import flags
from automate.config_flags import Config
from automate.driving import as_stored, drive_shown, left, stored_plan
from automate.printing import duration, say, say_json, say_pairs
from studies.plan import FRONT, OBJECTIVES, StudyPlan, is_front
from trainers.catalog import InputError

if TYPE_CHECKING:
    from studies.record import StudyRecord
    from studies.search import Estimate


def calibrate(
    study: str | None = None,
    /,
    *,
    space: str = "diverse_alpha",
    configs: flags.WholeOrNone = None,
    seeds: flags.WholeOrNone = None,
    objective: Annotated[
        str | None,
        Parameter(help=f"What is compared: {', '.join(OBJECTIVES)} [default: anytime]."),
    ] = None,
    budgets: flags.Numbers = None,
    running: flags.Running = flags.USUAL,
    config: Config = None,
) -> int:
    """Find out when stopping trials is right, and set it.

    A dozen configs spread out over a space run to the end with a few seeds each, as a study of its
    own, <study>-calibrate; the same command again goes on. A study that was searched with
    --no-early-stopping is only read. The next search of that name takes its grace or rungs, its eta
    and its tolerance from what is found, unless it is told otherwise.

    Args:
        study: A search to calibrate for, or a study of full-length trials to read [default: by
            --dataset, --backbone and --space, as `automate search` names it].
        space: As in `automate search`.
        configs: Spread out over the space, the paper's default among them; 5 or more [default: 12].
        seeds: Runs of each config [default: 3].
        budgets: Weight of each exit in the anytime objective [default: equal].
    """
    from studies.calibrating import (
        CONFIGS,
        SEEDS,
        calibration_name,
        calibration_plan,
        check_counts,
    )
    from studies.limits import Limits
    from studies.record import StudyRecord
    from studies.resume import with_runtime
    from studies.search import make_config, make_plan
    from studies.storage import place
    from trainers.data import check

    settings: dict[str, Any] = dict(config or {})
    explicit = running.explicit(settings)
    storage, runs, json = running.storage, running.runs, running.json
    limits = Limits(running.timeout, running.max_epochs_total)
    check_counts(configs, seeds)

    def of_study(name: str) -> StudyPlan | None:
        return None if running.fresh else stored_plan(name, storage, runs)

    if study is not None:
        if settings or objective is not None or budgets is not None:
            raise InputError(
                f"study {study!r} brings its own settings: leave out the study's name, or the flags"
            )
        with closing(StudyRecord.open(study, storage, runs)) as record:
            if not record.plan.early_stopping:
                if running.dry_run:
                    return _only_read(record, json=json)
                return _ending(record, runs, json=json)
            searched = record.plan
        check(searched.base, searched.data_root)
    else:
        check(make_config(**settings), running.data_root)  # before the machine is measured
        searched = make_plan(
            space, objective=objective, budgets=budgets, data_root=running.data_root,
            trials=(configs or CONFIGS) * (seeds or SEEDS),
            stored=lambda name: of_study(calibration_name(name)), **running.machine, **settings,
        )  # fmt: skip
    kept, ema = of_study(calibration_name(searched.study)), settings.get("ema")
    if kept is not None and kept.configs:  # its own numbers, where nothing is said
        configs = kept.configs if configs is None else configs
        seeds = kept.trials // kept.configs if seeds is None else seeds
        ema = kept.base.ema if ema is None else ema
    configs, seeds = CONFIGS if configs is None else configs, SEEDS if seeds is None else seeds
    plan = calibration_plan(searched, configs, seeds, ema)
    plan, outcomes = with_runtime(plan, explicit), None
    if not running.fresh:
        plan, outcomes = as_stored(plan, storage, runs, explicit, keep_trials=False)
    cost = left(plan, outcomes or [], running.ray_address)
    if not running.quiet:
        say_pairs(_pairs(plan, place(storage, runs, plan.study).label, cost), stderr=json)
        say(stderr=json)
    if running.dry_run:
        if json:
            say_json({"plan": plan, "left": cost and cost.epochs})
        return 0
    if cost is not None:
        record = StudyRecord.create_or_open(plan, storage, runs, running.fresh, explicit)
        with closing(record):
            drive_shown(record, running.ray_address, limits, quiet=running.quiet, json=json)
    with closing(StudyRecord.open(plan.study, storage, runs)) as record:
        return _ending(record, runs, json=json)


def _only_read(record: "StudyRecord", *, json: bool) -> int:
    """What a dry run says of a study that has run in full: nothing of it is left to train."""
    full = sum(outcome.state == "COMPLETE" for outcome in record.outcomes())
    say(f"{record.name}: {full} runs of full length are read, nothing is trained", stderr=json)
    if json:
        say_json({"plan": record.plan, "left": None})
    return 0


def _pairs(plan: StudyPlan, storage: str, cost: "Estimate | None") -> dict[str, object]:
    """A plan in words."""
    from automate.plan_text import machine_text, network_text, training_text

    base, configs = plan.base, plan.configs or 1
    objective = FRONT if is_front(plan.objective) else plan.objective
    pairs: dict[str, object] = {
        "study": plan.study,
        "stored in": storage,
        "runs": f"{plan.trials}: {configs} configs spread out over {plan.calibrates}, "
        f"seeds of each: {plan.trials // configs}, from {base.seed}; none stopped early",
        "network": network_text(plan),
        "training": training_text(base),
        "judged": f"the plain weights and their moving average, ema {base.ema:g}"
        if base.ema
        else "the plain weights",
        "objective": f"{objective}, on the validation split; the test images stay unread",
        "runs on": machine_text(plan),
    }
    if cost is not None:
        pairs["at most"] = f"{cost.epochs:,} epochs, {duration(cost.seconds)}"
    return pairs


def _ending(record: "StudyRecord", runs: Path, *, json: bool) -> int:
    """What was found, its report, and how to use it."""
    from automate.calibrate_text import say_findings
    from studies.calibrating import ENDING, calibration_of, keep
    from studies.calibration_text import calibration_json
    from studies.report import write_report
    from studies.view import look

    view = look(record)
    found = calibration_of(view)
    keep(record, found)
    write_report([record], record.folder / "report.html")
    page = runs / record.name / "report.html"
    if json:
        say_json({"study": record.name, "report": page, **calibration_json(found)})
        return 0
    say_findings(found, view.plan)
    say(f"Report: {page}")
    if view.plan.calibrates is not None:
        name = view.plan.study.removesuffix(ENDING)
        takes = "takes this by itself"
        if found.averages and found.other is not None:
            takes += f" with --ema {found.ema:g}, and without it what the plain weights ask for"
        say(f"The next search of these settings, if its study is {name}, {takes}.")
    return 0
