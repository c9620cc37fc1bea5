"""Records the learning curves that a table is made of: every point with every seed, to its end.

python -m tests.benchmarks.record points diverse_alpha 240 POINTS.json --dataset digits
python -m tests.benchmarks.record runs POINTS.json RUNS.jsonl --seeds 10 --workers 8
python -m tests.benchmarks.tables digits RUNS.jsonl studies/tables

The first makes the points: the space's starting points and a Sobol sequence; or the arms of the
paper's experiments (`points table2,recipe 11 ...`, then `runs ... --purpose reproduce`, see
`methods`); or those of runs that are there, to add seeds to them (`points RUNS.jsonl.gz 40 ...`).
The second needs nothing but `trainers`: processes of one thread on a CPU, threads that share a GPU.
Run k of a point has seed and split_seed k; what is in RUNS already is not run again.

`records/` has the runs of the VGG16 table. To add to them, unpack them, link every fifth class of
CIFAR-100 into ./cifar100-fifth/train, and go on; the table is then made with `tables vgg16-cifar100
RUNS.jsonl studies/tables --plain`.
"""

import argparse
import dataclasses
import functools
import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.pool import Pool, ThreadPool
from pathlib import Path
from typing import Any, Literal

import torch

from trainers.config import TrialConfig
from trainers.data import Data, load
from trainers.loop import train
from trainers.reports import EpochReport

Purpose = Literal["search", "reproduce"]
Job = tuple[int, Mapping[str, Any], dict[str, Any], int]  # point, its params, config, seed


def points(space: str, count: int, base: TrialConfig) -> list[dict[str, Any]]:
    """Points of a space: its starting points, then a Sobol sequence. Or the arms of experiments, or
    those of recorded runs.

    Args:
        space: Name, or a file; or experiments of the paper, with commas; or a file of runs.
        count: Of all of them.
        base: What they have in common.
    """
    import optuna

    from studies.experiments import EXPERIMENTS, arms_of
    from studies.recorded import read_runs

    if Path(space).suffix in (".jsonl", ".gz"):
        first = {run["point"]: run for run in reversed(read_runs(space))}
        return [
            {"params": first[n]["params"], "config": first[n]["config"].model_dump(mode="json")}
            for n in sorted(first)[:count]
        ]

    names = space.split(",")
    if set(names) <= set(EXPERIMENTS):
        arms = {arm.key: base.with_(**arm.point) for name in names for arm in arms_of(name, base)}
        made = [
            {"params": {"arm": key}, "config": config.model_dump(mode="json")}
            for key, config in arms.items()
        ]
        return made[:count]

    from search_spaces import load_space
    from studies.samplers import quietly

    loaded = load_space(space)
    with quietly():
        sampler = optuna.samplers.QMCSampler(
            qmc_type="sobol", scramble=True, seed=0, warn_independent_sampling=False
        )
        study = optuna.create_study(sampler=sampler)
    for start in loaded.starts(base):
        study.enqueue_trial(start)
    made = []
    while len(made) < count:
        with quietly():
            trial = study.ask()
            config = loaded.suggest(trial, base)
            study.tell(trial, 0.0)
        if trial.params not in [point["params"] for point in made]:
            made.append({"params": trial.params, "config": config.model_dump(mode="json")})
    return made


@functools.cache
def _data(text: str, root: str | None, device: str, purpose: Purpose) -> Data:
    # "test" without thresholds: the budget curve of every epoch is nobody's here
    data = load(TrialConfig.model_validate_json(text), purpose, root).to(device)
    return dataclasses.replace(data, split="test")


_loading = threading.Lock()


def data_of(config: TrialConfig, root: str | None, device: str, purpose: Purpose) -> Data:
    """The images of a run, shared by all that read the same."""
    read = ("dataset", "classes", "image_size", "limit_train", "validation", "split_seed")
    wanted = TrialConfig(
        scheme="branchynet",
        backbone=config.backbone,
        **{name: getattr(config, name) for name in read},
    )
    with _loading:
        return _data(wanted.model_dump_json(), root, device, purpose)


def run(
    job: Job,
    root: str | None = None,
    device: str = "cpu",
    purpose: Purpose = "search",
    hear: Callable[[EpochReport], None] = lambda report: None,
) -> dict[str, Any]:
    """One run to its end, as a line of the file.

    Args:
        job: What to run.
        root: Of the data.
        device: "cpu" or "cuda".
        purpose: Of `trainers.data.load`.
        hear: Is told of each epoch as it ends.
    """
    point, params, fields, seed = job
    torch.set_num_threads(1)
    config = TrialConfig(**{**fields, "seed": seed, "split_seed": seed})
    data = data_of(config, root, device, purpose)
    reports = []
    for report in train(config, data, device=device, each_epoch=True):
        reports.append(report)
        hear(report)
    scored = [report for report in reports if report.exits]
    line = {
        "config": fields,
        "params": params,
        "point": point,
        "seed": seed,
        "seconds": [round(report.seconds, 5) for report in reports],
        "loss": [report.loss for report in reports],
        "accuracy": [[round(a, 6) for a in report.accuracies] for report in scored],
    }
    if any(report.raw for report in reports):
        line["raw"] = [[round(a, 6) for a in report.raw] for report in scored]
    return line


def recorded(
    jobs: list[Job],
    workers: int,
    root: str | None = None,
    device: str = "cpu",
    purpose: Purpose = "search",
) -> Iterator[dict[str, Any]]:
    """The runs of all jobs, as they end."""
    one: Callable[[Job], dict[str, Any]] = functools.partial(
        run, root=root, device=device, purpose=purpose
    )
    if workers == 1:
        yield from map(one, jobs)
        return
    kind = multiprocessing.get_context("spawn").Pool if device == "cpu" else ThreadPool
    pool: Pool = kind(workers)
    with pool:
        yield from pool.imap_unordered(one, jobs)


def add_running(parser: argparse.ArgumentParser) -> None:
    """The flags that say on what, and where, points are run."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-root")
    parser.add_argument("--purpose", choices=("search", "reproduce"), default="search")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("points")
    make.add_argument("space")
    make.add_argument("count", type=int)
    make.add_argument("file", type=Path)
    make.add_argument("--dataset", default="digits")
    make.add_argument("--set", default="{}", type=json.loads, help="fields of the base, JSON")
    train_ = commands.add_parser("runs")
    train_.add_argument("points", type=Path)
    train_.add_argument("file", type=Path)
    train_.add_argument("--seeds", type=int, default=1)
    train_.add_argument("--workers", type=int, default=1)
    add_running(train_)
    given = parser.parse_args(words)
    if given.command == "points":
        base = TrialConfig(dataset=given.dataset, **given.set)
        given.file.write_text(json.dumps(points(given.space, given.count, base)))
        return
    there = []
    if given.file.exists():
        there = [json.loads(line) for line in given.file.read_text().splitlines()]
    done = {(line["point"], line["seed"]) for line in there}
    jobs: list[Job] = [
        (number, point["params"], point["config"], seed)
        for seed in range(given.seeds)
        for number, point in enumerate(json.loads(given.points.read_text()))
        if (number, seed) not in done
    ]
    begin = time.perf_counter()
    with given.file.open("a") as file:
        for count, line in enumerate(
            recorded(jobs, given.workers, given.data_root, given.device, given.purpose), 1
        ):
            print(json.dumps(line), file=file, flush=True)
            if count % 50 == 0 or count == len(jobs):
                passed = time.perf_counter() - begin
                print(f"{count} of {len(jobs)} runs, {passed:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
