"""Workers killed, frozen and raising on a real Ray."""

import os
import signal

import pytest

from studies import faults, local
from studies.limits import Limits
from studies.plan import StudyPlan
from studies.record import StudyRecord
from trainers.config import TrialConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    # Ray leaves sockets and subprocesses to the garbage collector, and warns of its own future.
    pytest.mark.filterwarnings("default"),
]

TELLS = """
import os, pathlib
from torch import nn
from trainers.backbones import Backbone
EXITS = 2
def build(width, image_size, image_channels):
    (pathlib.Path(__file__).parent / f"{os.getpid()}.pid").touch()
    stages = (nn.Conv2d(image_channels, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, padding=1))
    return Backbone(stages, (8, 12), nn.Linear)
"""


@pytest.fixture(scope="module")
def cluster():
    import ray

    from studies import cluster

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    yield cluster
    ray.shutdown()


@pytest.fixture
def record(tmp_path):
    """A study whose workers tell their process numbers."""
    (tmp_path / "tells.py").write_text(TELLS)
    base = TrialConfig(
        dataset="digits", epochs=5, limit_train=60, backbone=str(tmp_path / "tells.py")
    )
    plan = StudyPlan(study="s", space="diverse_alpha", base=base, trials=3, grace=5, workers=1)
    return StudyRecord.create_or_open(plan, runs=tmp_path)


def workers(folder) -> list[int]:
    """Alive, the latest last."""
    files = sorted(folder.glob("*.pid"), key=lambda path: path.stat().st_mtime)
    pids = [int(path.stem) for path in files if int(path.stem) != os.getpid()]
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_a_trial_whose_workers_die_is_tried_twice_more_and_the_search_goes_on(
    cluster, record, tmp_path
):
    killed = []

    def kill(event):
        if event.kind == "epoch" and event.number == 1 and event.report.epoch == 2 + len(killed):
            killed.append(event.report.epoch)
            os.kill(workers(tmp_path)[-1], signal.SIGKILL)

    assert cluster.search(record, kill) is None
    outcomes = record.outcomes()
    assert [o.state for o in outcomes] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert outcomes[1].reason == f"its worker died (attempt {faults.RETRIES + 1})"
    assert len(killed) == faults.RETRIES + 1
    epochs = [report.epoch for report in record.reports(1)]
    assert epochs == list(range(1, outcomes[1].epochs + 1)), "each epoch once"


def test_epochs_in_total_hold_with_two_workers(cluster, tmp_path):
    base = TrialConfig(dataset="digits", epochs=4, limit_train=60)
    plan = StudyPlan(study="two", space="diverse_alpha", base=base, trials=6, grace=4, workers=2)
    record = StudyRecord.create_or_open(plan, runs=tmp_path)
    why = cluster.search(record, limits=Limits(epochs=9))
    assert why is not None and "--max-epochs-total" in why
    assert sum(outcome.epochs for outcome in record.outcomes()) <= 9
    assert record.spent() >= 8
    assert "RUNNING" not in [outcome.state for outcome in record.outcomes()]
    assert local.search(record) is None
    assert [o.state for o in record.outcomes()] == ["COMPLETE"] * 6
