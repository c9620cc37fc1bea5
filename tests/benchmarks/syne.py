"""The same search of the digits by Syne Tune's ASHA, which is installed for this benchmark only.

pip install syne-tune

(or, without xgboost, which this does not need: pip install --no-deps syne-tune dill psutil
sortedcontainers statsmodels patsy)
"""

import contextlib
import importlib.util
import io
import logging
import os
from pathlib import Path
from typing import Any

from trainers.config import TrialConfig

INSTALLED = importlib.util.find_spec("syne_tune") is not None
MISSING = "Syne Tune is not installed (pip install syne-tune): its row is left out."
STATES = {"Completed": "COMPLETE", "Stopped": "PRUNED"}
POLL = 0.1  # seconds between two looks at the trials; its default of 5 is a whole trial here


def run(base: str, alpha_1: float, alpha_2: float, alpha_3: float, alpha_4: float) -> None:
    """One trial, in a process of its own. Syne Tune sends the code alone: imports stand inside."""
    import torch
    from syne_tune import Reporter

    from studies.front import objective
    from trainers.config import TrialConfig
    from trainers.loop import train

    torch.set_num_threads(1)
    report = Reporter()
    config = TrialConfig.model_validate_json(base)
    for epoch in train(config.with_(alpha=(alpha_1, alpha_2, alpha_3, alpha_4))):
        report(epoch=epoch.epoch, value=objective("anytime", epoch.exits, None, None))


def searched(
    base: TrialConfig, trials: int, seed: int, grace: int, eta: int, folder: Path, workers: int = 2
) -> tuple[list[tuple[str, int]], TrialConfig]:
    """States as Syne Tune has them with the epochs that ran, and the config of the best value among
    trials of full length."""
    os.environ["SYNETUNE_FOLDER"] = str(folder)  # read at import, by the trials too
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import PythonBackend
    from syne_tune.config_space import loguniform
    from syne_tune.optimizer.baselines import ASHA
    from syne_tune.tuner_callback import TunerCallback

    class Heard(TunerCallback):  # type: ignore[misc]
        """The last epoch and value of each trial, and its parameters."""

        def __init__(self) -> None:
            self.last: dict[int, tuple[int, float]] = {}
            self.points: dict[int, dict[str, Any]] = {}

        def on_trial_result(
            self, trial: Any, status: str, result: dict[str, Any], decision: str
        ) -> None:
            self.last[trial.trial_id] = result["epoch"], result["value"]
            self.points[trial.trial_id] = trial.config

    logging.getLogger("syne_tune").setLevel(logging.ERROR)
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    names = [f"alpha_{i}" for i in range(1, base.exits + 1)]
    space = {**{name: loguniform(0.1, 100) for name in names}, "base": base.model_dump_json()}
    heard = Heard()
    tuner = Tuner(
        trial_backend=PythonBackend(run, space),
        scheduler=ASHA(
            space,
            metric="value",
            time_attr="epoch",
            max_t=base.epochs,
            do_minimize=False,
            random_seed=seed,
            grace_period=grace,
            reduction_factor=eta,
            points_to_evaluate=[dict.fromkeys(names, 3.0)],
        ),
        stop_criterion=StoppingCriterion(max_num_trials_started=trials),
        n_workers=workers,
        sleep_time=POLL,
        wait_trial_completion_when_stopping=True,
        callbacks=[heard],
        trial_backend_path=str(folder),
        save_tuner=False,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
        tuner.run()
    seen = tuner.tuning_status.last_trial_status_seen
    states = [
        (STATES.get(seen[number], seen[number]), heard.last.get(number, (0, 0.0))[0])
        for number in sorted(seen)
    ]
    full = [number for number, (epoch, _) in heard.last.items() if epoch == base.epochs]
    best = heard.points[max(full, key=lambda number: heard.last[number][1])]
    return states, base.with_(alpha=tuple(float(best[name]) for name in names))
