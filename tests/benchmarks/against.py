"""The same search of the digits by others: wall time, epochs, states, and what the best is worth.

python -m tests.benchmarks.against --rounds 3

Same space (one alpha per exit), training function, trials, epochs, grace and eta for all: plain
Optuna with its SuccessiveHalvingPruner; Ray Tune with its OptunaSearch and ASHAScheduler; Syne Tune
with its ASHA, where it is installed (see `tests.benchmarks.syne`); ours in one process and on Ray.
The others are what a careful user would write.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from search_spaces import load_space
from studies.front import objective
from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.search import drive
from tests.benchmarks import syne
from tests.benchmarks.showing import show
from trainers.config import TrialConfig
from trainers.data import load
from trainers.loop import train
from trainers.rounds import Row

SPACE = "diverse_alpha"
ETA = 2


@dataclass(frozen=True)
class Search:
    """What is asked of everybody."""

    base: TrialConfig
    trials: int
    seed: int

    @property
    def grace(self) -> int:
        return max(1, self.base.epochs // 3)


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        states: (state as stored, epochs that it ran), a trial.
        best: The config of the trial with the best value among those of full length.
    """

    states: list[tuple[str, int]]
    best: TrialConfig


def value_of(report: object) -> float:
    return objective("anytime", report.exits, None, None)  # type: ignore[attr-defined]


def ours(search: Search, folder: Path, workers: int = 1) -> Found:
    plan = StudyPlan(
        study="against",
        space=SPACE,
        base=search.base,
        trials=search.trials,
        seed=search.seed,
        grace=search.grace,
        eta=ETA,
        workers=workers,
    )
    with closing(StudyRecord.create_or_open(plan, runs=folder)) as record:
        drive(record)
        outcomes = record.outcomes()
    full = [o for o in outcomes if o.epochs == search.base.epochs and o.value is not None]
    best = max(full, key=lambda o: o.value or 0.0).config
    assert best is not None
    return Found([(o.state, o.epochs) for o in outcomes], best)


def ours_on_ray(search: Search, folder: Path) -> Found:
    return ours(search, folder, workers=2)


def plain_optuna(search: Search, folder: Path) -> Found:
    space = load_space(SPACE)
    configs: dict[int, TrialConfig] = {}

    def run(trial: optuna.Trial) -> float:
        config = configs[trial.number] = space.suggest(trial, search.base)
        for report in train(config):
            trial.report(value_of(report), report.epoch)
            if trial.should_prune() and report.epoch < config.epochs:
                raise optuna.TrialPruned
        return value_of(report)

    study = optuna.create_study(
        storage=f"sqlite:///{folder}/study.db",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=search.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(search.grace, ETA),
    )
    for point in space.starts(search.base):
        study.enqueue_trial(point)
    study.optimize(run, n_trials=search.trials)
    states = [(t.state.name, len(t.intermediate_values)) for t in study.trials]
    full = [t for t in study.trials if t.state is TrialState.COMPLETE]
    return Found(states, configs[max(full, key=lambda t: t.value or 0.0).number])


def ray_tune(search: Search, folder: Path) -> Found:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    base, names = search.base, [f"alpha_{i}" for i in range(1, search.base.exits + 1)]

    def config_of(point: dict[str, float]) -> TrialConfig:
        return base.with_(alpha=tuple(point[name] for name in names))

    def run(point: dict[str, float]) -> None:
        torch.set_num_threads(1)
        for report in train(config_of(point)):
            tune.report({"value": value_of(report), "epoch": report.epoch})

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        asked = OptunaSearch(
            metric="value",
            mode="max",
            seed=search.seed,
            points_to_evaluate=[dict.fromkeys(names, 3.0)],
        )
        results = tune.Tuner(
            tune.with_resources(run, {"cpu": 1}),
            param_space={name: tune.loguniform(0.1, 100) for name in names},
            tune_config=tune.TuneConfig(
                search_alg=asked,
                scheduler=ASHAScheduler(
                    time_attr="epoch",
                    metric="value",
                    mode="max",
                    max_t=base.epochs,
                    grace_period=search.grace,
                    reduction_factor=ETA,
                ),
                num_samples=search.trials,
                max_concurrent_trials=2,
            ),
            run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
        ).fit()
        states = [(trial.state.name, trial.last_step or 0) for trial in asked._ot_study.trials]
    finally:
        ray.shutdown()
    ran = [result.metrics for result in results]
    # What is stored has lost how far a stopped trial came; Ray's own results have not.
    states = [(state, m["epoch"]) for (state, _), m in zip(states, ran, strict=True)]
    full = [m for m in ran if m["epoch"] == base.epochs]
    return Found(states, config_of(max(full, key=lambda m: m["value"])["config"]))


def syne_tune(search: Search, folder: Path) -> Found:
    return Found(*syne.searched(search.base, search.trials, search.seed, search.grace, ETA, folder))


SIDES: dict[str, Callable[[Search, Path], Found]] = {
    "Optuna + SuccessiveHalvingPruner": plain_optuna,
    "Ray Tune OptunaSearch + ASHA": ray_tune,
    **({"Syne Tune ASHA": syne_tune} if syne.INSTALLED else {}),
    "ours, one process": ours,
    "ours, Ray": ours_on_ray,
}


def right(state: str, epochs: int, full: int) -> bool:
    """Whether a stopped trial can be told from a finished one."""
    return state == ("COMPLETE" if epochs == full else "PRUNED")


def worth(config: TrialConfig, seeds: int) -> list[float]:
    """Anytime accuracy on the test images, of fresh seeds."""
    found = []
    for seed in range(100, 100 + seeds):
        config = config.with_(seed=seed)
        *_, last = train(config, load(config, "final"))
        found.append(value_of(last))
    return found


def table(
    trials: int, rounds: int, epochs: int = 30, seeds: int = 3, sides: tuple[str, ...] = ()
) -> list[Row]:
    """A row for each side and figure; the rounds are other seeds of the sampler, interleaved."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    if not syne.INSTALLED:
        print(syne.MISSING)
    base = TrialConfig(epochs=epochs)
    chosen = sides or tuple(SIDES)
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in chosen}
    for seed in range(rounds):
        for name in chosen:
            with tempfile.TemporaryDirectory() as folder:
                begin = time.perf_counter()
                found = SIDES[name](Search(base, trials, seed), Path(folder))
                seconds = time.perf_counter() - begin
            good = [right(state, ran, epochs) for state, ran in found.states]
            for figure, value in (
                ("wall time (s)", seconds),
                ("epochs", float(sum(ran for _, ran in found.states))),
                ("states right (%)", 100 * sum(good) / len(good)),
                ("best on fresh seeds (%)", 100 * statistics.fmean(worth(found.best, seeds))),
            ):
                figures[name].setdefault(figure, []).append(value)
    return [
        Row(figure, name, statistics.median(values), "", rounds=rounds,
            note=f"{min(values):.4g} to {max(values):.4g}")
        for figure in figures[chosen[0]]
        for name in chosen
        for values in (figures[name][figure],)
    ]  # fmt: skip


def main(words: list[str] | None = None, trials: int = 20) -> list[Row]:
    return show(
        "against others", lambda given: table(given.trials, given.rounds), words, trials=trials
    )


if __name__ == "__main__":
    main()
