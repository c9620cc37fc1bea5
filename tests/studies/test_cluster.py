"""The search on a real Ray: the same trials, states and values as in one process."""

import os
import signal
import time
from contextlib import closing

import pytest

from studies import confirm, joining, local
from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.search import estimate, make_plan
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.devices import settled_device
from trainers.speed import preferred

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and subprocesses to the garbage collector, and warns of its own future.
    pytest.mark.filterwarnings("default"),
]

TINY = TrialConfig(dataset="digits", epochs=4, limit_train=60)


def plan(study: str, **changes) -> StudyPlan:
    fields = {
        "study": study, "space": "diverse_alpha", "base": TINY, "trials": 8, "grace": 1,
        "threads": 1, "workers": 1,
    }  # fmt: skip
    return StudyPlan(**{**fields, **changes})


def test_a_worker_whose_node_has_another_file_trains_nothing(tmp_path):
    from studies.cluster import _Worker

    scheme = tmp_path / "mine.py"
    scheme.write_text(
        "from trainers.schemes import Scheme\n"
        "SCHEME = Scheme('the mean', lambda a: [[1 / len(a)] * len(a)], lambda a: [[1]] * len(a))\n"
    )
    worker, config = object.__new__(_Worker), TINY.with_(scheme=str(scheme))
    settings = {
        "config": config.model_dump_json(), "checkpoint": str(tmp_path / "run.pt"),
        "digests": config.digests, "data_root": None, "device": "cpu", "threads": 1,
        "purpose": "search", "each_epoch": False, "hits": False,
    }  # fmt: skip
    worker.reset_config(settings)
    assert worker.step()["epoch"] == 1
    scheme.write_text(scheme.read_text() + "# older\n")
    worker.reset_config(settings)
    said = worker.step()
    assert (said["epoch"], said["input"]) == (0, True)
    assert "has another scheme file" in said["error"]


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, once for the module."""
    import ray

    from studies import cluster

    ray.init(
        address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    yield cluster
    ray.shutdown()


def test_a_cluster_that_does_not_answer_gets_one_line(tmp_path):
    # First in this file: a Ray that is up already is used whatever the address.
    from studies import cluster

    record = StudyRecord.create_or_open(plan("nowhere"), runs=tmp_path)
    with pytest.raises(InputError, match="no Ray cluster can be reached") as caught:
        cluster.search(record, address="127.0.0.1:1")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no Ray cluster can be reached"):
        make_plan("diverse_alpha", ray_address="127.0.0.1:1")


def test_a_cluster_that_refuses_says_nothing_but_one_line(monkeypatch, capfd):
    def refused(**_: object) -> None:
        os.write(2, b"gcs_client.cc: InvalidAuthToken")  # not Python's to redirect
        print("Connecting to existing Ray cluster")
        raise ConnectionError("Failed to connect")

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(joining.nodes, "knock", lambda address: None)
    monkeypatch.setattr(joining.ray, "init", refused)
    with pytest.raises(InputError, match="to connect; if it asks for a token, set RAY_AUTH_MODE"):
        make_plan("diverse_alpha", ray_address="10.0.0.5:6379")
    print("and so on")
    assert capfd.readouterr() == ("and so on\n", "")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(InputError, match="to connect$"):
        make_plan("diverse_alpha", ray_address="10.0.0.5:6379")


@pytest.mark.parametrize("address", ["localhost", "10.0.0.5", "10.0.0.5:x"])
def test_an_address_has_a_port(address):
    with pytest.raises(InputError, match="ray_address needs to be host:port") as caught:
        make_plan("diverse_alpha", ray_address=address)
    assert "TOKEN" not in str(caught.value).upper()


def test_a_plan_is_for_the_nodes_of_the_cluster(cluster):
    """The GPUs are a name only: whoever plans sees none, nor does a node."""
    made = make_plan("diverse_alpha", device="cpu", trials=5, ray_address="here")
    assert (made.device, made.workers, made.threads, made.gpus_per_trial) == ("cpu", 2, 1, 0)
    assert made.speeds is not None and made.base.precision == preferred(made.speeds)
    assert estimate(made, "here").images_per_second == made.speeds[made.base.precision]
    assert make_plan("diverse_alpha", device="cpu", trials=1, ray_address="here").workers == 1
    for asked in ({}, {"device": "cuda"}, {"workers": 2}):
        made = make_plan("diverse_alpha", ray_address="here", **asked)
        assert (made.device, made.workers, made.threads) == ("cuda", 2, 1)
        assert (made.gpus_per_trial, made.base.precision) == (1, "fp32")
    four = make_plan("diverse_alpha", ray_address="here", workers=4)
    assert (four.workers, four.gpus_per_trial) == (4, 0.5)
    with pytest.raises(InputError, match="a node of the Ray cluster cannot train") as caught:
        estimate(made, "here")
    assert "\n" not in str(caught.value)


def test_what_a_node_says_in_place_of_an_answer_is_one_line(cluster, monkeypatch):
    nodes = joining.Nodes("here")
    with pytest.raises(InputError, match=r"^device cuda: no CUDA device is visible; take --dev.*"):
        nodes.ask(settled_device, "cuda", device="cuda")
    monkeypatch.setattr(joining, "NODE_MEASURES", 0.5)
    with pytest.raises(InputError, match=r"did not measure within 0\.5 s"):
        nodes.ask(lambda: time.sleep(3))
    with pytest.raises(InputError, match="a node of the Ray cluster cannot train"):
        nodes.ask(lambda: os._exit(1))
    monkeypatch.setattr(joining, "_alive", lambda: [{"Resources": {"CPU": 1.0}}])
    with pytest.raises(InputError, match="the Ray cluster has no GPU"):
        nodes.ask(lambda: 0, device="cuda")


def test_a_trial_fits_on_one_node(cluster, monkeypatch):
    """Not in what all nodes have together: Tune would wait for that forever."""
    head, gpu = {"CPU": 4.0, "memory": 1e9}, {"CPU": 2.0, "GPU": 1.0}
    monkeypatch.setattr(joining, "_alive", lambda: [{"Resources": one} for one in (head, gpu)])
    nodes = joining.Nodes("here")
    assert (nodes.cores, nodes.gpus, nodes.alone) == (6, 1, 4)
    assert nodes.beside_gpu(1.0, 1) == 2 and nodes.beside_gpu(0.25, 4) == 1
    for fits in ({"threads": 4}, {"threads": 2, "gpus_per_trial": 1.0}):
        joining._check_room(plan("fits", **fits))
    for not_so in ({"threads": 5}, {"threads": 4, "gpus_per_trial": 1.0}, {"gpus_per_trial": 2.0}):
        with pytest.raises(InputError, match=r"a trial needs .* on one node") as caught:
            joining._check_room(plan("not_so", **not_so))
        assert "\n" not in str(caught.value)
    assert str(caught.value) == (
        "a trial needs 1 CPU and 2 GPU on one node, those of the Ray cluster have 2 CPU and 1 GPU, "
        "4 CPU and 0 GPU: lower --threads or --gpus-per-trial"
    )


def test_a_connection_to_another_cluster_is_left(monkeypatch):
    ended = []
    monkeypatch.setattr(joining, "_joined", ["10.0.0.5:6379"])
    monkeypatch.setattr(joining.ray, "shutdown", lambda: ended.append("left"))
    joining._leave_another("10.0.0.5:6379")
    assert ended == []
    for address in (None, "10.0.0.6:6379"):
        joining._joined[:] = ["10.0.0.5:6379"]
        joining._leave_another(address)
    assert ended == ["left", "left"] and joining._joined == []


def described(record: StudyRecord) -> list[tuple]:
    return [
        (o.number, o.state, o.params, o.value, o.epochs, o.report and o.report.accuracies)
        for o in record.outcomes()
    ]


FRONT = {"objective": "front", "grace": 3, "eta": 4, "base": TINY.with_(limit_train=180)}


@pytest.mark.parametrize("changes", [{}, FRONT], ids=["anytime", "front"])
def test_one_worker_on_ray_gives_what_one_process_gives(cluster, tmp_path, changes):
    here = StudyRecord.create_or_open(plan("here", **changes), runs=tmp_path)
    local.search(here)
    there = StudyRecord.create_or_open(plan("there", **changes), runs=tmp_path)
    cluster.search(there)
    assert described(there) == described(here)
    states = {outcome.state for outcome in here.outcomes()}
    assert states == {"COMPLETE", "PRUNED"}, "the study has trials of both ends"


def test_two_workers_run_every_trial_once(cluster, tmp_path):
    record = StudyRecord.create_or_open(plan("two", workers=2), runs=tmp_path)
    seen: list[tuple[str, int]] = []
    cluster.search(record, lambda event: seen.append((event.kind, event.number)))
    outcomes = record.outcomes()
    assert [outcome.number for outcome in outcomes] == list(range(8))
    assert all(outcome.state in ("COMPLETE", "PRUNED") for outcome in outcomes)
    for kind in ("started", "ended"):
        assert sorted(n for k, n in seen if k == kind) == list(range(8))
    for outcome in outcomes:
        epochs = [report.epoch for report in record.reports(outcome.number)]
        assert epochs == list(range(1, outcome.epochs + 1))
        full = outcome.epochs == TINY.epochs
        assert full == (outcome.state == "COMPLETE")


RAISES = """
import torch
from torch import nn
from trainers.backbones import Backbone
EXITS = 2
class Raises(nn.Conv2d):
    def forward(self, x):
        if torch.is_grad_enabled():  # not where the file is tried, before a search
            raise RuntimeError("no such layer")
        return super().forward(x)
def build(width, image_size, image_channels):
    stages = (Raises(image_channels, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, padding=1))
    return Backbone(stages, (8, 12), nn.Linear)
"""


def test_a_trial_that_raises_fails_with_its_reason_and_the_search_goes_on(cluster, tmp_path):
    path = tmp_path / "broken_backbone.py"
    path.write_text(RAISES)
    base = TINY.with_(backbone=str(path))
    record = StudyRecord.create_or_open(plan("broken", base=base, trials=2), runs=tmp_path)
    cluster.search(record)
    assert [outcome.state for outcome in record.outcomes()] == ["FAIL", "FAIL"]
    assert all("no such layer" in str(outcome.reason) for outcome in record.outcomes())


def test_what_the_user_gave_wrongly_ends_the_search_and_fails_no_trial(cluster, tmp_path):
    path = tmp_path / "wrong_backbone.py"
    path.write_text("EXITS = 2\ndef build(width, image_size, image_channels):\n    return 1\n")
    base = TINY.with_(backbone=str(path))
    record = StudyRecord.create_or_open(plan("wrong", base=base, trials=2), runs=tmp_path)
    why = cluster.search(record)
    assert why is not None and "build needs to return a Backbone" in why
    assert [outcome.state for outcome in record.outcomes()] == ["WAITING", "WAITING"]


SAYS_WHO_BUILDS_IT = """
import os, pathlib
from torch import nn
from trainers.backbones import Backbone
EXITS = 2
def build(width, image_size, image_channels):
    (pathlib.Path(__file__).parent / f"{os.getpid()}.pid").touch()
    stages = (nn.Conv2d(image_channels, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, padding=1))
    return Backbone(stages, (8, 12), nn.Linear)
"""


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(cluster, tmp_path):
    backbone = tmp_path / "tells.py"
    backbone.write_text(SAYS_WHO_BUILDS_IT)
    base = TINY.with_(epochs=12, backbone=str(backbone))
    record = StudyRecord.create_or_open(
        plan("killed", base=base, trials=1, grace=12), runs=tmp_path
    )
    killed: list[int] = []

    def workers():
        return {int(path.stem) for path in tmp_path.glob("*.pid")} - {os.getpid()}

    def kill_at_the_third_epoch(event):
        if event.kind == "epoch" and event.report.epoch == 3 and not killed:
            killed.extend(workers())
            os.kill(killed[0], signal.SIGKILL)

    cluster.search(record, kill_at_the_third_epoch)
    outcome = record.outcomes()[0]
    assert (outcome.state, outcome.epochs) == ("COMPLETE", 12)
    assert len(killed) == 1 and len(workers()) == 2, "another process went on"
    assert [report.epoch for report in record.reports(0)] == list(range(1, 13))


def test_what_is_cut_short_goes_back_to_waiting(cluster, tmp_path):
    record = StudyRecord.create_or_open(plan("cut", workers=2), runs=tmp_path)

    def interrupt(event):
        if event.kind == "ended":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.search(record, interrupt)
    states = [outcome.state for outcome in record.outcomes()]
    assert "RUNNING" not in states and "WAITING" in states
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) >= 1
    cluster.search(record)
    assert all(o.state in ("COMPLETE", "PRUNED") for o in record.outcomes())


def test_a_race_on_two_workers_is_the_race_of_one_process(cluster, tmp_path):
    """The rounds wait for each other there too, and the same configs leave."""
    searched = plan("searched", trials=4, early_stopping=False)
    races = []
    for folder, workers in (("one", 1), ("two", 2)):
        with closing(StudyRecord.create_or_open(searched, runs=tmp_path / folder)) as found:
            local.search(found)
            made = confirm.make_plan(found, top=3, seeds=3, workers=workers)
        record = StudyRecord.create_or_open(made, runs=tmp_path / folder)
        (local if workers == 1 else cluster).search(record)
        assert confirm.is_over(record.outcomes(), made)
        races.append(described(record))
        every = [o.report.hits for o in record.outcomes() if o.state == "COMPLETE"]
        assert len(set(every)) == 10 and all(every)
        races.append(every)
        kept = [n for n in range(12) if record.checkpoint(n).exists()]
        assert len(kept) == 9
    assert races[:2] == races[2:]
    assert sum(state == "PRUNED" for _, state, *_ in races[0]) == 2
