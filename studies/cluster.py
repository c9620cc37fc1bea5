"""The same search on Ray Tune: several trials at a time, on this machine or a cluster.

Ray owns processes and clocks and sees a trial as a number and a config; the study's record owns
choices, states and memory. `tune.Tuner` drives a `Searcher` of ours, which asks the record, and a
`TrialScheduler` of ours, which hands every report to it. The stock OptunaSearch is not used: it
tells every trial that a scheduler stopped as COMPLETE. Tune's own experiment state is not used
either: going on means a new Tuner over the same study. Which trial of the record is which of Tune's
is kept by `studies.dispatch`; here is what needs Ray.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studies import faults, nodes, trial
from studies.dispatch import Dispatch
from studies.joining import joined, look_at_nodes  # sets Ray's environment first
from studies.limits import Grants, Limits
from studies.record import StudyRecord
from studies.scratch import scratch
from studies.trial import OnEvent
from trainers.catalog import InputError
from trainers.checkpoints import UnwritableError
from trainers.config import TrialConfig
from trainers.reports import EpochReport

from ray import tune  # isort: skip
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # isort: skip
from ray.tune.search import Searcher  # isort: skip


def search(
    record: StudyRecord,
    on_event: OnEvent = trial.ignore,
    address: str | None = None,
    limits: Limits | None = None,
) -> str | None:
    """Runs the study's waiting trials on Ray until there is none left, or a limit is reached.

    A trial whose worker dies or hangs, or that raises, is tried again or told FAIL with the reason
    (`studies.faults`).

    Args:
        record: An open study, owned by this process.
        on_event: Called with what happens, in this thread.
        address: Of a running Ray cluster; Ray is started on this machine if not given.
        limits: What this call may spend.

    Returns:
        Why it ended before its trials did; None if none is left.

    Raises:
        InputError: No Ray cluster answers at the address, it has no room for one trial, or a node
            does not see the study's folder or the data.
        StorageError: The storage failed, or a checkpoint cannot be written: the trials wait.
    """
    # A worker that died is replaced, and told FAIL with a reason in the end: no traceback here.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    driver = _Driver(record, on_event, Grants(record, limits or Limits()))
    with joined(record.plan, address) as outlives_us, scratch() as folder, record.renewing():
        try:
            look_at_nodes(record)
            _tuner(record, driver, folder).fit()
        except BaseException:
            driver.give_back()
            # In a Ray that outlives us Tune's workers would keep their cores.
            if outlives_us and driver.controller is not None:
                driver.controller.cleanup()
            raise
        finally:
            driver.give_back()
            record.release()
        if driver.failure is not None:
            raise driver.failure
    return driver.over


class _Driver(Dispatch):
    """A dispatch that Tune, which copies and saves what it is given, leaves as it is.

    Attributes:
        controller: Tune's, once it runs.
        deaths: Why a worker died, by Tune's id of its trial, until the searcher hears of it.
    """

    def __init__(self, record: StudyRecord, on_event: OnEvent, grants: Grants) -> None:
        super().__init__(record, on_event, grants)
        self.controller: Any = None
        self.deaths: dict[str, str] = {}

    def watch(self, ray_trials: list[Any]) -> None:
        """Ends trials that hang, and of those that no worker has begun what the limits cut."""
        for ray_trial in ray_trials:
            ray_id, status = ray_trial.trial_id, ray_trial.status
            if ray_id not in self.tickets or self.controller is None:
                continue
            if status == "PENDING" and self.cut_unbegun(ray_id):
                self.controller.request_stop_trial(ray_trial)
            elif self.hangs(ray_id, runs=status == "RUNNING"):
                # Not stopped in order: Tune would give the worker the next trial.
                self.controller._process_trial_failure(ray_trial, tune.TuneError("hung"))

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Driver":
        return self  # the record is one

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[()]]:
        return dict, ()  # what Tune saves nobody reads


class _Asks(Searcher):
    """Tune's trials are the record's."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__(metric="epoch", mode="max")
        self.driver = driver

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        ticket = self.driver.ask(trial_id)
        if ticket == "later":
            return None  # Tune's word for it
        if ticket == "never":
            return Searcher.FINISHED  # type: ignore[return-value]
        plan = self.driver.record.plan
        return {
            "number": ticket.number,
            "config": ticket.config.model_dump_json(),
            "checkpoint": str(self.driver.record.checkpoint(ticket.number).absolute()),
            "data_root": plan.data_root,
            "digests": plan.digests,
            "device": plan.device,
            "threads": plan.threads,
            "purpose": plan.purpose,
            "each_epoch": plan.each_epoch,
            "hits": plan.keeps_hits,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if error:
            why = self.driver.deaths.pop(trial_id, faults.why_it_died(""))
            self.driver.broke(trial_id, why, died=True)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the memory."""


class _Reports(FIFOScheduler):
    """Every report goes to the record, which says whether the trial goes on."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.driver = driver

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.driver.controller = tune_controller

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Before the searcher hears of it.
        with contextlib.suppress(OSError, TypeError):
            said = Path(trial.error_file).read_text(errors="replace")
            self.driver.deaths[trial.trial_id] = faults.why_it_died(said)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        going_on = self.driver.take(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if going_on else TrialScheduler.STOP)


class _Clock(tune.Callback):
    """Looks at what is silent, some ten times a second."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.driver.watch(trials)


class _Worker(tune.Trainable):
    """The generator of `trials.run`, an epoch a step. One process serves many trials."""

    def setup(self, config: dict[str, Any]) -> None:
        # Ray moves its workers elsewhere; a user's relative paths mean the driver's folder.
        if os.path.isdir(config["folder"]):
            os.chdir(config["folder"])
        self._reports: Iterator[EpochReport] | None = None
        self._settings = config

    def step(self) -> dict[str, Any]:
        settings = self._settings
        try:
            if self._reports is None:
                nodes.check_shared(Path(settings["checkpoint"]).parent)
                config = TrialConfig.model_validate_json(settings["config"])
                nodes.check_files(config, settings["digests"])
                self._reports = trial.run(
                    config,
                    data_root=settings["data_root"],
                    device=settings["device"],
                    threads=settings["threads"],
                    checkpoint=Path(settings["checkpoint"]),
                    purpose=settings["purpose"],
                    each_epoch=settings["each_epoch"],
                    hits=settings["hits"],
                )
            report = next(self._reports)
        except UnwritableError as error:
            return {"epoch": 0, "unwritable": str(error)}
        except Exception as error:  # the trial's own failure, not the worker's
            users = isinstance(error, InputError)
            return {"epoch": 0, "error": trial.reason_of(error), "input": users}
        return {"epoch": report.epoch, "report": report.model_dump_json()}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._reports = None
        self._settings = new_config
        return True


def _tuner(record: StudyRecord, driver: _Driver, folder: Path) -> tune.Tuner:
    plan = record.plan
    resources = {"cpu": plan.threads, "gpu": plan.gpus_per_trial}
    return tune.Tuner(
        tune.with_resources(_Worker, resources),
        param_space={"folder": os.getcwd()},
        tune_config=tune.TuneConfig(
            search_alg=_Asks(driver),
            scheduler=_Reports(driver),
            num_samples=-1,  # until the record has no more
            max_concurrent_trials=plan.workers,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(folder),
            # The record says whether a trial is tried again, as a new trial of Tune's.
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[_Clock(driver)],
            # Ours are the only checkpoints. Left alone, Tune asks a stopped trial for one of its
            # own, takes the refusal for a failure, and starts it anew in a new process.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
