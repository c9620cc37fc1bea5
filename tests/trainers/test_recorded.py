"""Runs made of graphs against the same code launched step by step, where no GPU is."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.trainers import recorded
from tests.trainers.networks import config as config_of
from tests.trainers.test_captured import BASE, KINDS
from tests.trainers.test_own_schemes import EED, LINEAR, MATE
from trainers import fused, graphs, opening
from trainers import run as runs_of
from trainers.captured import CapturedRun
from trainers.config import TrialConfig
from trainers.data import Data, load, random_images
from trainers.graphs import Pass
from trainers.kernels import NAMES

CPU = torch.device("cpu")


def state(run: CapturedRun) -> dict[str, torch.Tensor]:
    """Every number that a run goes on from."""
    parts: list[torch.nn.Module] = [run.network, run.teachers]
    parts += [] if run.average is None else [run.average.modules]
    tensors = {
        f"{place} {name}": value
        for place, part in enumerate(parts)
        for name, value in part.state_dict().items()
    }
    momenta = run.optimizer.state_dict()["state"]
    return tensors | {f"momentum {k}": one["momentum_buffer"] for k, one in momenta.items()}


def assert_same(ours: CapturedRun, theirs: CapturedRun) -> None:
    mine, other = state(ours), state(theirs)
    assert mine.keys() == other.keys()
    assert [name for name in mine if not torch.equal(mine[name], other[name])] == []


def both(monkeypatch: pytest.MonkeyPatch, config: TrialConfig, data: Data) -> list[CapturedRun]:
    """A run made of graphs, and one that launches each step by itself."""
    plain = CapturedRun(config, data, "cpu")
    recorded.use(monkeypatch)
    ours = CapturedRun(config, data, "cpu")
    assert ours._training.captured and not plain._training.captured
    return [ours, plain]


def assert_epoch_is_the_same(runs: list[CapturedRun], data: Data, epoch: int) -> None:
    losses = [run.train_epoch(data.fit, epoch) for run in runs]
    assert losses[0] == losses[1]
    scores = [run.score(data.score, epoch, cross_fit=True) for run in runs]
    assert scores[0] == scores[1]
    assert_same(*runs)


@pytest.mark.parametrize("kind", KINDS)
def test_replays_are_the_steps(kind, monkeypatch):
    """lr, T and the ramp differ between epochs; from the second on the score is a graph's too."""
    config = BASE.with_(**KINDS[kind])
    data = load(config)
    runs = both(monkeypatch, config, data)
    for epoch in range(config.epochs):
        assert_epoch_is_the_same(runs, data, epoch)
    assert runs[0]._scoring.captured


@pytest.mark.parametrize("text", [MATE, EED, LINEAR])
def test_replays_of_a_users_scheme_are_the_steps(text, monkeypatch, tmp_path):
    """A weight network of the user's own is in the graph; another run's weights are loaded."""
    (tmp_path / "mine.py").write_text(text)
    config = BASE.with_(scheme=str(tmp_path / "mine.py"), alpha=(1.0, 2.0, 3.0, 4.0))
    data = load(config)
    runs = both(monkeypatch, config, data)
    for seed in (0, 1):
        if seed:
            for run in runs:
                run.load(config.with_(seed=seed, lr=0.05), data)
        for epoch in range(2):
            assert_epoch_is_the_same(runs, data, epoch)


@pytest.mark.parametrize("kind", ["mate", "gates", "annealed", "averaged"])
def test_graphs_are_loaded_with_another_config(kind, monkeypatch, tmp_path):
    config = BASE.with_(**KINDS[kind])
    data = load(config)
    ours, _ = runs = both(monkeypatch, config, data)
    for epoch in range(2):
        ours.train_epoch(data.fit, epoch)
        ours.score(data.score, epoch)
    changes: dict[str, Any] = {"alpha": (30.0,), "kd_weight": 2.0, "lr": 0.05, "seed": 1}
    if config.exit_weights is not None:
        changes["exit_weights"] = (0.5, 1.0, 2.0, 3.0)
    other = config.with_(**changes, epochs=3, schedule="cosine", temperatures=(2.0, 5.0))
    for run in runs:
        run.load(other, data)
    for epoch in range(2):
        assert_epoch_is_the_same(runs, data, epoch)
    runs[1].save(tmp_path / "state", [])
    ours.train_epoch(data.fit, 2)
    ours.restore(tmp_path / "state")
    assert_epoch_is_the_same(runs, data, 2)
    for run in runs:
        run.renew()
    assert_epoch_is_the_same(runs, data, 0)


def few(config: TrialConfig) -> Data:
    """Random images of the kind that a config trains on: two batches and a half."""
    fit, score = random_images(config, config.batch_size * 5 // 2), random_images(config, 11)
    return Data(fit, score, "validation")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "backbone",
    ["vgg16", "resnet18", "msdnet", pytest.param("densenet121", marks=pytest.mark.slow)],
)
def test_every_network_can_be_captured(backbone, precision, monkeypatch):
    config = config_of(
        backbone, width=0.125, precision=precision, batch_size=4, epochs=2, ema=0.9, lr=0.01
    )
    data = few(config)
    runs = both(monkeypatch, config, data)
    for epoch in range(2):
        assert_epoch_is_the_same(runs, data, epoch)


class Noise(torch.nn.Module):
    """Draws, and says so to nobody."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(features, 0.1, self.training)


class Depth(torch.nn.Module):
    """Draws from Python's own generator."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * 0 if self.training and random.random() < 0.5 else features


@pytest.mark.parametrize("drawing", [torch.nn.Dropout, torch.nn.AlphaDropout, Noise, Depth])
def test_what_draws_is_not_captured(drawing, monkeypatch):
    """Each epoch's draws begin with its seed, whatever ran before; a graph's would go on."""

    def with_noise(config: TrialConfig) -> object:
        network = made(config)
        network.classifiers[0] = torch.nn.Sequential(drawing(), network.classifiers[0])
        return network

    made = runs_of.build_network
    monkeypatch.setattr(runs_of, "build_network", with_noise)
    monkeypatch.setattr(opening, "_idle", [])
    monkeypatch.setattr(opening, "_never", {})
    recorded.use(monkeypatch)
    state = torch.get_rng_state()
    said = pytest.warns(UserWarning, match="launched by itself: a step draws random numbers")
    with said, opening.opened(BASE, load(BASE), "cpu") as one:
        assert type(one) is runs_of.Run
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_a_gpus_whole_way_is_an_ordinary_runs_within_bf16(kernels, monkeypatch):
    """Graphs of our kernels, heads and weights' gradients apart, bf16 copies of the weights."""
    config = BASE.with_(precision="bf16", batch_size=16, limit_train=40)
    data = load(config)
    monkeypatch.setattr(graphs, "WARM_UP", 1)
    for limit, value in {"FEW_ROWS": 300, "BLOCKS": 2, "SUMMING": 2}.items():
        monkeypatch.setattr(fused, limit, value)  # the first maps are many rows, the others few
    plain = CapturedRun(config.with_(precision="fp32"), data, "cpu")
    recorded.use(monkeypatch, kernels)
    ours = CapturedRun(config, data, "cpu")
    assert ours.path == "CUDA graphs, fused batch norm, bf16" and ours._branches.apart
    graph: Any = ours._training._graphs[config.batch_size]
    launched = {call[0]._run.__name__ for call in graph.calls if hasattr(call[0], "_run")}
    assert launched == {f"run_{name}" for name in NAMES}
    mine, theirs = (run.train_epoch(data.fit, 0) for run in (ours, plain))
    assert mine == pytest.approx(theirs, rel=0.02)


class Counter:
    """Something small to capture."""

    def __init__(self) -> None:
        self.total, self.factor = torch.zeros(()), 2.0
        self.on_device = torch.full((), 2.0)
        self.last = torch.zeros(2)

    def baked(self, places: torch.Tensor) -> None:
        self.total += self.factor * places.sum()

    def read(self, places: torch.Tensor) -> None:
        self.total += self.on_device * places.sum()

    def left(self, places: torch.Tensor) -> None:
        self.last = places + 1.0


def captured(body: Callable[[torch.Tensor], None], monkeypatch: pytest.MonkeyPatch) -> Pass:
    recorded.use(monkeypatch)
    made = Pass(4, 2, CPU)
    made.capture(body, recorded.Stream(), None)  # type: ignore[arg-type]
    return made


def test_a_capture_computes_nothing_and_a_replay_reads_memory(monkeypatch):
    counter = Counter()
    made = captured(counter.read, monkeypatch)
    assert float(counter.total) == 3 * 2.0  # the warm-up, places 0 and 1
    counter.total.zero_()
    counter.on_device.fill_(10.0)
    made.run(counter.read)
    assert float(counter.total) == 10 * (0 + 1 + 2 + 3)


def test_a_number_of_the_hosts_stays_what_it_was(monkeypatch):
    counter = Counter()
    made = captured(counter.baked, monkeypatch)
    counter.total.zero_()
    counter.factor = 10.0
    made.run(counter.baked)
    assert float(counter.total) == 2 * (0 + 1 + 2 + 3)


def test_what_a_graph_has_made_is_rubbish_after_it(monkeypatch):
    counter = Counter()
    made = captured(counter.left, monkeypatch)
    made.run(counter.left)
    assert counter.last.isnan().all()


@pytest.mark.parametrize(
    "body",
    [
        lambda places: float(places.sum()),
        lambda places: places[places > 0],
        lambda places: places + torch.tensor([1, 2]),
        lambda places: places + torch.ones(2),
        lambda places: torch.randn(2, device=CPU),
        lambda places: torch.nn.functional.dropout(places.float()),
        lambda places: places.float().exponential_(),
        lambda places: torch.nn.functional.rrelu(places.float(), training=True),
        lambda places: places.tolist(),
        lambda places: places.numpy(),
        lambda places: places.cpu(),
        lambda places: places.repeat_interleave(places),
        lambda places: torch.allclose(places, places),
    ],
)
def test_nothing_is_asked_of_the_host_nor_brought_from_it(body, monkeypatch):
    seen = []

    def counted(places: torch.Tensor) -> None:
        seen.append(len(places))
        body(places)

    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        captured(counted, monkeypatch)
    assert len(seen) == 4, "the warm-up may"


def test_a_run_that_reads_lr_from_the_host_is_found_out(monkeypatch):
    """What these tests are for: each epoch of the schedule has its own lr."""
    config = BASE.with_(schedule="cosine")
    data = load(config)
    update = CapturedRun._update

    def baked(run: CapturedRun, value: torch.Tensor) -> None:
        on_device = run._lrs
        run._lrs = tuple(group["lr"] for group in run.optimizer.param_groups)  # type: ignore[assignment]
        update(run, value)
        run._lrs = on_device

    monkeypatch.setattr(CapturedRun, "_update", baked)
    runs = both(monkeypatch, config, data)
    assert_epoch_is_the_same(runs, data, 0)
    with pytest.raises(AssertionError):
        assert_epoch_is_the_same(runs, data, 1)
