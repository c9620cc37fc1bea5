"""An experiment of the paper made into studies, and the two that train nothing.

for plan in plans("table2", backbones=["vgg16"], seeds=3):
    record = search(plan)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from studies import machine
from studies.experiments import arms_of, experiment_named, settled
from studies.paper import paper
from studies.plan import EXPERIMENT, StudyPlan, default_study_name, found_digests
from studies.search import machine_at, make_config
from trainers import catalog, sources
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.devices import check_threads, settled_device

ALL = "all"


def bases(
    name: str, datasets: Sequence[str] = (), backbones: Sequence[str] = (), **fields: Any
) -> list[TrialConfig]:
    """What the studies of an experiment start from, one a network and data set.

    Args:
        name: Of the experiment.
        datasets: Names or folders, or "all" of the paper's; its first if none is given.
        backbones: Likewise; on a data set that the paper does not have, the data set's own.
        **fields: Fields of `TrialConfig`.

    Raises:
        InputError: Whatever does not fit, in one line.
    """
    row = experiment_named(name)
    chosen = list(row.datasets) if ALL in datasets else list(datasets or row.datasets[:1])
    made = []
    for dataset in dict.fromkeys(chosen):
        networks: list[str | None] = list(row.backbones) if ALL in backbones else [*backbones]
        if not networks:
            networks = [row.backbones[0] if dataset in row.datasets else None]
        for network in dict.fromkeys(networks):
            given = {} if network is None else {"backbone": network}
            made.append(make_config(dataset, **given, **fields))
    return made


def plans(
    name: str,
    *,
    datasets: Sequence[str] = (),
    backbones: Sequence[str] = (),
    seeds: int | None = None,
    only: Sequence[str] | None = None,
    rule: Literal["last", "paper"] = "last",
    study: str | None = None,
    data_root: str | Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    gpus_per_trial: float | None = None,
    device: str | None = None,
    ray_address: str | None = None,
    **fields: Any,
) -> list[StudyPlan]:
    """The studies of an experiment, one a network and data set, with everything settled.

    Args:
        name: Of the experiment.
        datasets, backbones, **fields: See `bases`.
        seeds: Runs of each arm, the base's seed and those after it; the paper's 3 if not given.
        only: Keys of the arms to run; all if not given.
        rule: "last": figures of the last epoch. "paper": of the epoch with the best last-exit test
            accuracy, which selects on the test set.
        study: Name, of one study; `<dataset>-<backbone>-<experiment>` if not given.
        data_root: Where the data set lies.
        workers, threads, gpus_per_trial, device, ray_address: As in `studies.search.make_plan`.

    Raises:
        InputError: Whatever does not fit, in one line.
    """
    name = settled(name)
    row = experiment_named(name)
    if row.arms is None or name == "cost":
        raise InputError(f"{name} trains nothing that a study could hold: it is made at once")
    if rule not in ("last", "paper"):
        raise catalog.unknown("rule", rule, ("last", "paper"))
    seeds = paper().recipe["seeds"] if seeds is None else seeds
    if seeds < 1:
        raise InputError(f"seeds needs to be at least 1, got {seeds}")
    found, where = bases(name, datasets, backbones, **fields), machine_at(ray_address)
    if study is not None and len(found) > 1:
        raise InputError(f"--study names one study, {len(found)} were asked for: leave it out")
    made = []
    for base in found:
        keys = [arm.key for arm in arms_of(name, base, only)]
        if only is not None and len(keys) == len(arms_of(name, base)):
            only = None
        trials = seeds * len(keys)
        runs_on = machine.settled(
            base, trials, data_root, workers, threads, gpus_per_trial, device, where=where
        )
        plan = StudyPlan(
            study=default_study_name(base, name) if study is None else study,
            space=f"{EXPERIMENT}{name}",
            base=base,
            data_root=None if base.dataset == "digits" else str(sources.data_root(data_root)),
            trials=trials,
            sampler="grid",
            objective="last",
            early_stopping=False,
            grace=base.epochs,
            purpose=row.purpose,
            each_epoch=row.each_epoch or rule == "paper",
            rule=rule,
            only=None if only is None else tuple(keys),
            **runs_on,
        )
        made.append(plan.with_(digests=found_digests(base, plan.space)))
    return made


def counted(configs: Sequence[TrialConfig]) -> list[tuple[TrialConfig, list[int]]]:
    """Table 1's FLOPs of each config's exits."""
    from trainers.costs import costs

    return [(config, [cost.flops for cost in costs(config)]) for config in configs]


def table1_bases(
    datasets: Sequence[str] = (), backbones: Sequence[str] = (), **fields: Any
) -> list[TrialConfig]:
    """Table 1's networks on its data sets, or those that are named.

    Of the paper only ResNet18 is counted at 224 pixels.
    """
    if datasets or backbones:
        networks = backbones or experiment_named("table1").backbones
        return bases("table1", datasets, networks, **fields)
    small = bases("table1", ("cifar100",), (ALL,), **fields)
    return [*small, *bases("table1", ("stanford_dogs",), ("resnet18",), **fields)]


def footprints_of(
    base: TrialConfig,
    *,
    only: Sequence[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    rounds: int = 5,
    on_round: Callable[[int], None] = lambda number: None,
) -> tuple[str, dict[str, Any]]:
    """Training time and memory of every scheme on this machine: the experiment `cost`.

    Args:
        base: Network, data set and batch size.
        only: Keys of the arms; BranchyNet, what the others are measured by, is always among them.
        device: "cpu" or "cuda"; CUDA where there is one if not given.
        threads: CPU threads; as torch has them if not given.
        rounds: How often each is measured.
        on_round: Called with the number of rounds done.

    Returns:
        The device, and arm's key -> its `trainers.footprint.Footprint`s.

    Raises:
        InputError: Unknown arm, no such device, or threads below 1.
    """
    import torch

    from trainers.footprint import footprints

    wanted = None if only is None else [*only, "branchynet"]
    arms = arms_of("cost", base, wanted)
    check_threads(threads)
    device = settled_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        configs = {arm.key: base.with_(**arm.point) for arm in arms}
        return device, footprints(configs, device=device, rounds=rounds, on_round=on_round)
    finally:
        torch.set_num_threads(before)
