"""A search in one call: the plan made whole, its cost estimated, and the driver chosen.

plan = make_plan("diverse_alpha", dataset="digits")
record = search(plan)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces import load_space
from studies import machine, trial
from studies.calibrating import kept_rule
from studies.experiments import space_of
from studies.front import checked_budgets, objective_for, planned_objective
from studies.limits import Limits
from studies.plan import (
    NO_RUNGS,
    SAMPLERS,
    StudyPlan,
    checked_study_name,
    default_study_name,
    found_digests,
    settled_grace,
)
from studies.record import StudyRecord
from studies.resume import corner_configs, given_points
from studies.trial import OnEvent
from studies.unread import unread
from trainers import catalog, sources
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.devices import settled_device
from trainers.folders import describe_folder, passed_over
from trainers.own import FILES, missing
from trainers.sources import check, epoch_images

KeptCalibration = Callable[[str], tuple[StudyPlan, dict[str, Any]] | None]


def _absolute(kind: str, file: str) -> str:
    """A user's file as it is given; unlike one of a record it needs to be there."""
    if not Path(file).is_file():
        raise missing(kind, file)
    return str(Path(file).absolute())


def make_config(dataset: str = "digits", **fields: Any) -> TrialConfig:
    """A config of a named data set or of a folder, which is looked at for its classes and size.

    Raises:
        InputError: Whatever does not fit, in one line.
    """
    # Absolute, because a worker on Ray and a later command may start in another folder.
    for kind in FILES:
        if catalog.is_path(str(fields.get(kind, ""))):
            fields[kind] = _absolute(kind, fields[kind])
    if dataset in catalog.DATASETS or not catalog.is_path(dataset):
        return TrialConfig(dataset=dataset, **fields)
    dataset = str(Path(dataset).absolute())
    seen = describe_folder(dataset, fields.get("resize"))
    takes = [
        name for name, entry in catalog.BACKBONES.items() if seen["image_size"] in entry.image_sizes
    ]
    if "backbone" not in fields and takes:
        fields["backbone"] = takes[0]
    return TrialConfig(dataset=dataset, **{**seen, **fields})


def machine_at(ray_address: str | None) -> machine.Machine:
    """The nodes of a Ray cluster, or this machine. Raises InputError where nobody answers."""
    if ray_address is None:
        return machine.HERE
    from studies.joining import Nodes

    return Nodes(ray_address)


def make_plan(
    space: str,
    *,
    dataset: str = "digits",
    study: str | None = None,
    data_root: str | Path | None = None,
    trials: int | None = None,
    sampler: str = "tpe",
    objective: str | None = None,
    budgets: tuple[float, ...] | None = None,
    search_seed: int = 0,
    early_stopping: bool = True,
    eta: int | None = None,
    grace: int | None = None,
    rungs: tuple[int, ...] | None = None,
    tolerance: float | None = None,
    run_on: float | None = None,
    workers: int | None = None,
    threads: int | None = None,
    gpus_per_trial: float | None = None,
    device: str | None = None,
    ray_address: str | None = None,
    stored: Callable[[str], StudyPlan | None] = lambda study: None,
    calibration: KeptCalibration = lambda study: None,
    **fields: Any,
) -> StudyPlan:
    """A search with everything settled: what is not given is chosen for where it runs.

    Args:
        space: A space's name, or a Python file.
        dataset: A data set's name, or a folder of class folders.
        study: Name; `<dataset>-<backbone>-<space>` if not given.
        data_root: Where the data set lies.
        trials: Total number; if not given all points of the grid sampler, else the data set's
            default.
        sampler, budgets, early_stopping: See `StudyPlan`.
        objective: See `StudyPlan`; the space's own, else anytime, if not given.
        search_seed: Of the sampler.
        eta, grace, rungs, tolerance: See `StudyPlan`. If none is given those of a calibration,
            where there is one; else 2, a third of the epochs, no list of rungs and 0.
        run_on: See `StudyPlan`; 0 if not given.
        workers: Trials at a time; if not given four on a single GPU, one on each of several, or
            the machine's cores where the search is long enough for Ray's start to pay, else 1. On
            a cluster one on each of its GPUs, or of its cores.
        threads: CPU threads of a trial; if not given 1 beside other trials, else the faster of one
            and all.
        gpus_per_trial: Share of a GPU; if not given 1 / workers on a single GPU, 1 on several.
        device: "cpu" or "cuda"; CUDA where there is one if not given.
        ray_address: The Ray cluster that it is for: what is chosen is measured on one of its nodes.
        stored: The plan of the study of a name, if it is there already: what runs it is taken from
            there where it is not given, and nothing is measured again.
        calibration: The plan of a study of a name and what was kept of its calibration, if there
            is any.
        **fields: Fields of `TrialConfig` that every trial has in common. Without `precision` the
            faster one is taken on a CPU, measured, if it computes the same there.

    Raises:
        InputError: Whatever does not fit, in one line.
    """
    base = make_config(dataset, **fields)
    if catalog.is_path(space):
        space = _absolute("space", space)
    loaded = load_space(space)
    objective = planned_objective(objective_for(loaded, objective, base.exits), base)
    if budgets is not None:
        checked_budgets(budgets, base.exits)
    if sampler not in SAMPLERS:
        raise catalog.unknown("sampler", sampler, SAMPLERS)
    points, _ = given_points(loaded, base, sampler)
    if trials is None:
        entry = catalog.DATASETS.get(base.dataset)
        trials = len(points) if sampler == "grid" else entry.trials if entry else 30
    study = default_study_name(base, space) if study is None else checked_study_name(study)
    known = stored(study)
    if known is None:
        unread(loaded, base)  # refuses what would be one config again and again
    if known is not None and known.base.epochs == base.epochs:  # whatever defaults are today
        eta = known.eta if eta is None else eta
        if grace is None and rungs is None:
            grace, rungs = known.grace, known.rungs if early_stopping else None
        tolerance = known.tolerance if tolerance is None else tolerance
        run_on = known.run_on if run_on is None else run_on
    calibrated = None if known is None else known.calibrated
    asked = (eta, grace, rungs, tolerance)
    if known is None and early_stopping and all(one is None for one in asked):
        found = kept_rule(study, base, space, objective, calibration)
        if found is not None:
            calibrated, rule = found
            eta, tolerance = rule.eta, rule.tolerance
            grace, rungs = rule.grace, rule.rungs
    grace = settled_grace(grace, rungs, base.epochs)
    if rungs is not None and not early_stopping:
        raise InputError(NO_RUNGS)
    speeds, where = None, machine_at(ray_address)
    if known is not None:
        workers = known.workers if workers is None else workers
        threads = known.threads if threads is None else threads
        if gpus_per_trial is None and device in (None, "cuda") and known.device == "cuda":
            gpus_per_trial = known.gpus_per_trial
        device = known.device if device is None else device
        base = base.with_(precision=fields.get("precision", known.base.precision))
    elif "precision" not in fields and settled_device(device, where.gpus) == "cpu":
        from trainers.speed import preferred  # torch, which is measured with just here

        speeds = where.ask(machine.measure_precisions, base)
        base = base.with_(precision=preferred(speeds))
    elif "precision" not in fields and where.ask(machine.bf16_in_hardware, device="cuda"):
        base = base.with_(precision="bf16")
    one_thread = None if speeds is None else speeds[base.precision]
    runs_on = machine.settled(
        base, trials, data_root, workers, threads, gpus_per_trial, device, one_thread, where
    )
    plan = StudyPlan(
        study=study,
        space=space,
        base=base,
        data_root=None if base.dataset == "digits" else str(sources.data_root(data_root)),
        trials=trials,
        sampler=sampler,
        objective=objective,
        budgets=budgets,
        seed=search_seed,
        early_stopping=early_stopping,
        eta=2 if eta is None else eta,
        grace=grace,
        rungs=rungs,
        tolerance=tolerance or 0.0,
        run_on=run_on or 0.0,
        calibrated=calibrated,
        speeds=speeds,
        **runs_on,
    )
    return plan.with_(digests=found_digests(base, space))


SCORING = 1 / 3  # of training on an image: no gradients
EPOCH, TRIAL = 0.02, 0.15  # s, at most, beyond that: a report and a checkpoint; building a network


@dataclass(frozen=True)
class Estimate:
    """What a plan costs where it runs, at most.

    Attributes:
        epochs: Of all trials, if none is stopped early.
        seconds: Of training, with the plan's workers, if none is stopped early. Of trials that
            share a GPU as if they took turns: some networks fill it alone.
        disk: Bytes of checkpoints at a time: two for each worker, and one being written.
        images_per_second: Of one worker by itself, with the base's network.
        trained, scored: Images of an epoch, and those that are held out.
        passed_over: Files of a folder of images that are none by their names: see
            `trainers.folders.passed_over`.
        has_test: Whether test images are there as far as it can be seen without looking at them.
    """

    epochs: int
    seconds: float
    disk: int
    images_per_second: float
    trained: int
    scored: int
    passed_over: dict[str, int] = field(default_factory=dict)
    has_test: bool = True


def estimate(plan: StudyPlan, ray_address: str | None = None) -> Estimate:
    """Epochs, time and disk of a plan, from a fraction of a second of training.

    Where the space or the finalists have dearer networks than the base's, as if every trial had the
    dearest, its time by its FLOPs.

    Args:
        plan: From `make_plan`.
        ray_address: The cluster that it is for.
    """
    from trainers.costs import costs

    where = machine_at(ray_address)
    if plan.speeds and plan.threads == 1:
        speed = plan.speeds[plan.base.precision]
    else:
        given = plan.base, plan.device, (plan.threads,)
        speed = where.ask(machine.measure, *given, device=plan.device).images_per_second
    epochs = plan.trials * plan.base.epochs
    trained, scored = epoch_images(plan.base, plan.data_root)
    own = catalog.is_path(plan.base.dataset)
    images = trained + scored * (2 if plan.base.ema else 1) * SCORING
    base = costs(plan.base)[-1]
    others = corner_configs(space_of(plan), plan.base)
    others += [finalist.config for finalist in plan.finalists or ()]
    last = [costs(config)[-1] for config in others]
    dearest = max((cost.flops_cascade for cost in last), default=base.flops_cascade)
    dearer = max(1.0, dearest / base.flops_cascade)
    weights = max(cost.parameters for cost in (base, *last))
    together = 1 if plan.on_one_gpu else _at_a_time(plan, where.cores)
    return Estimate(
        epochs=epochs,
        seconds=(epochs * (dearer * images / speed + EPOCH) + plan.trials * TRIAL) / together,
        disk=3 * 2 * 4 * weights * plan.workers,  # two kept, one written; weights and momentum
        images_per_second=speed,
        trained=trained,
        scored=scored,
        passed_over=passed_over(plan.base.dataset) if own else {},
        has_test=not own or (Path(plan.base.dataset) / "test").is_dir(),
    )


def _at_a_time(plan: StudyPlan, cores: int) -> int:
    """Workers that make it faster: no more than there are trials, nor on a CPU than cores."""
    most = cores // plan.threads if plan.device == "cpu" else plan.workers
    return max(1, min(plan.workers, plan.trials, most))


def search(
    plan: StudyPlan,
    *,
    storage: str | None = None,
    runs: Path = Path("runs"),
    fresh: bool = False,
    runtime: Mapping[str, Any] | None = None,
    ray_address: str | None = None,
    on_event: OnEvent = trial.ignore,
    limits: Limits | None = None,
) -> StudyRecord:
    """Runs a plan to its end, or goes on with it, and returns the study.

    Args:
        plan: From `make_plan`.
        storage: An Optuna URL; `runs/<study>/study.db` if not given.
        runs: Folder of the studies.
        fresh: Start over.
        runtime: See `StudyRecord.create_or_open`.
        ray_address: A Ray cluster to run on; Ray is started here where more than one worker asks.
        on_event: Called with what happens.
        limits: What this call may spend; what is cut waits, and the next call goes on.

    Raises:
        InputError: Missing data, or a study of that name that was asked for something else.
    """
    check(plan.base, plan.data_root, test=plan.purpose != "search")
    record = StudyRecord.create_or_open(
        plan, storage=storage, runs=runs, fresh=fresh, runtime=runtime
    )
    drive(record, ray_address=ray_address, on_event=on_event, limits=limits)
    return record


def drive(
    record: StudyRecord,
    *,
    ray_address: str | None = None,
    on_event: OnEvent = trial.ignore,
    limits: Limits | None = None,
) -> str | None:
    """Runs the trials of an open study that wait, in this process or on Ray as its plan says.

    Several at a time that fit on one GPU share it in this process: on Ray, in processes of their
    own, they would take turns on it.

    Args:
        record: From `StudyRecord.create_or_open`.
        ray_address, on_event, limits: See `search`.

    Returns:
        Why it ended before its trials did; None if none waits.
    """
    record.plan.check_files()
    if ray_address is None and record.plan.on_one_gpu:
        from studies import streams

        over = streams.search(record, on_event, limits)
    elif record.plan.workers > 1 or ray_address is not None:
        from studies import cluster

        over = cluster.search(record, on_event, address=ray_address, limits=limits)
    else:
        from studies import local

        over = local.search(record, on_event, limits)
    record.tidy()
    return over
