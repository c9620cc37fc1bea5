"""A run made of captured passes: on a CPU uncaptured, the same code and the same results."""

import dataclasses
import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from trainers import captured, checkpoints, opening
from trainers.bench import Operations
from trainers.captured import CapturedRun, kind_of
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.data import load
from trainers.graphs import Pass
from trainers.opening import opened
from trainers.run import Run

BASE = TrialConfig(epochs=4, limit_train=75, ramp_up=3)
KINDS = {
    "mate": {},
    "gates": {"scheme": "mate_gate", "exit_weights": (1.0, 2.0, 1.0, 0.5), "mix_lr": 0.5},
    "annealed": {"scheme": "dbt", "t_squared": True},
    "primary": {"scheme": "mate_primary", "temperatures": (4.0, 2.0)},
    "labels too": {"scheme": "one"},
    "averaged": {"ema": 0.9},
    "one exit": {"scheme": "baseline", "momentum": 0.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_an_ordinary_runs(kind):
    config = BASE.with_(**KINDS[kind])
    data = load(config)
    ours, plain = CapturedRun(config, data, "cpu"), Run(config)
    assert ours.network.state_dict().keys() == plain.network.state_dict().keys()
    for epoch in range(2):
        assert ours.train_epoch(data.fit, epoch) == pytest.approx(
            plain.train_epoch(data.fit, epoch), rel=1e-4
        )
        mine, theirs = (run.score(data.score, epoch, cross_fit=True) for run in (ours, plain))
        assert mine.keys() == theirs.keys()
        for one, two in zip(mine["exits"], theirs["exits"], strict=True):
            assert one.accuracy == pytest.approx(two.accuracy, abs=0.05)
            assert (one.exit, one.flops) == (two.exit, two.flops)
        assert mine["mix_entropy"] == pytest.approx(theirs["mix_entropy"], abs=0.05)
        assert len(mine["raw"]) == len(theirs["raw"])


HOST = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}


@pytest.mark.parametrize("kind", KINDS)
def test_no_batch_waits_for_the_host(kind):
    """What reads the device's memory from the host happens as often with 2 batches as with 7."""
    read = []
    for batch_size in (40, 12):
        config = BASE.with_(**KINDS[kind], batch_size=batch_size)
        data = load(config)
        run = CapturedRun(config, data, "cpu")
        run.train_epoch(data.fit, 0)
        with Operations() as seen:
            run.train_epoch(data.fit, 1)
        steps = sum("_fused_sgd_" in name for name in seen.names)
        assert steps >= len(data.fit) // batch_size
        read.append(sum(name in HOST for name in seen.names))
    assert read[0] == read[1] <= 8


def test_the_first_epochs_loss_in_bf16_is_fp32s():
    config = TrialConfig(dataset="cifar100", backbone="resnet18", width=0.125)
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    made = load(BASE).fit
    fit = dataclasses.replace(
        made, stored=images, labels=torch.arange(40), rows=None, size=32,
        mean=(0.5,) * 3, std=(0.2,) * 3, classes=tuple(map(str, range(100))),
    )  # fmt: skip
    data = dataclasses.replace(load(BASE), fit=fit, score=fit)
    losses = [
        CapturedRun(config.with_(precision=precision), data, "cpu").train_epoch(fit, 0)
        for precision in ("fp32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_run_is_loaded_with_another_config_of_its_kind():
    config = BASE.with_(ema=0.9)
    changed = {"alpha": (30.0,), "temperatures": (2.0, 4.0), "epochs": 2, "seed": 1, "lr": 0.05}
    other = config.with_(**changed, kd_weight=2.0)
    data = load(config)
    used = CapturedRun(config, data, "cpu")
    used.train_epoch(data.fit, 0)
    used.load(other, data)
    fresh = CapturedRun(other, data, "cpu")
    for epoch in range(2):
        assert used.train_epoch(data.fit, epoch) == fresh.train_epoch(data.fit, epoch)
    assert used.score(data.score, 1) == fresh.score(data.score, 1)
    assert used.judged()[1].temperature(1) == used.temperature(1) == 4.0
    for one, two in zip(used.network.parameters(), fresh.network.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_other_threads_draw_is_left_alone():
    data = load(BASE)
    state = torch.get_rng_state()
    kind_of(BASE, data, "cpu")
    run = CapturedRun(BASE, data, "cpu")
    run.load(BASE.with_(seed=1), data)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_baked_in_makes_another_kind(tmp_path: Path):
    data = load(BASE)
    own = tmp_path / "net.py"
    own.write_text("EXITS = 4\n")
    before = kind_of(BASE.with_(backbone=str(own)), data, "cpu")
    own.write_text("EXITS = 4  # edited\n")
    assert kind_of(BASE.with_(backbone=str(own)), data, "cpu") != before

    def kind(**changes: object) -> object:
        return kind_of(BASE.with_(**changes), data, "cpu")

    for loaded in ({"alpha": (1.0, 2.0, 3.0, 4.0)}, {"temperature": 9.0}, {"seed": 3}, {"lr": 1.0}):
        assert kind(**loaded) == kind()
    for baked in (
        {"scheme": "eed"}, {"alpha_teacher": (1.0,)}, {"t_squared": True}, {"kl": "reverse"},
        {"batch_size": 16}, {"ema": 0.5}, {"exit_weights": (1.0,) * 4}, {"precision": "bf16"},
        {"momentum": 0.5}, {"weight_decay": 0.0}, {"mix_scale": 1.0},
    ):  # fmt: skip
        assert kind(**baked) != kind(), baked
    smaller = dataclasses.replace(data, fit=data.score)
    assert kind_of(BASE, smaller, "cpu") != kind()


def test_a_checkpoint_goes_from_one_to_the_other(tmp_path: Path):
    data = load(BASE)
    ours, plain = CapturedRun(BASE, data, "cpu"), Run(BASE)
    for run in (ours, plain):
        run.train_epoch(data.fit, 0)
    ours.save(tmp_path / "ours", [])
    plain.save(tmp_path / "plain", [])
    again = CapturedRun(BASE, data, "cpu")
    again.restore(tmp_path / "ours")
    expected = ours.train_epoch(data.fit, 1)
    assert again.train_epoch(data.fit, 1) == expected
    plain.restore(tmp_path / "ours")
    assert plain.train_epoch(data.fit, 1) == pytest.approx(expected, rel=1e-4)
    ours.restore(tmp_path / "plain")
    assert ours.train_epoch(data.fit, 1) == pytest.approx(expected, rel=1e-4)
    ours.renew()
    assert ours.train_epoch(data.fit, 0) == CapturedRun(BASE, data, "cpu").train_epoch(data.fit, 0)


@pytest.mark.parametrize(
    ("n", "batch", "least", "expected"),
    [(10, 4, 1, [4, 4, 2]), (8, 4, 1, [4, 4]), (3, 4, 1, [3]), (9, 4, 2, [4, 4]), (1, 4, 2, [])],
)
def test_a_pass_goes_through_all_images_in_order(n, batch, least, expected):
    seen: list[list[int]] = []
    made = Pass(n, batch, torch.device("cpu"), least)
    for _ in range(2):
        seen.clear()
        made.run(lambda places: seen.append(places.tolist()))
        assert [len(places) for places in seen] == expected
        assert sum(seen, []) == list(range(sum(expected)))
    assert made.images == sum(expected)


def test_a_run_is_gone_with_its_last_reference():
    """What it holds is a GPU's memory, and nothing tells Python's collector that it runs short."""
    config = BASE.with_(ema=0.9)
    data = load(config)
    run = CapturedRun(config, data, "cpu")
    run.train_epoch(data.fit, 0)
    run.score(data.score, 0)
    gone = weakref.ref(run), weakref.ref(run.network)
    gc.disable()
    try:
        del run
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


def test_a_users_own_network_has_no_branches(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "from trainers.backbones import Backbone\n"
        "EXITS = 2\n"
        "def build(width, image_size, image_channels):\n"
        "    twice = nn.Conv2d(8, 8, 3, padding=1, bias=False)\n"
        "    stages = (nn.Conv2d(image_channels, 8, 3), nn.Sequential(twice, twice))\n"
        "    return Backbone(stages, (8, 8), nn.Linear)\n"
    )
    branched = []
    monkeypatch.setattr(captured, "branch", lambda network, _: branched.append(network))
    for config, expected in ((BASE.with_(backbone=str(file), alpha=(3.0,)), 0), (BASE, 1)):
        CapturedRun(config, load(config), "cpu")
        assert len(branched) == expected


OWN_BLOCKS = """
from torch import nn
from torch.nn import functional
from trainers.backbones import Backbone

EXITS = 3


class BasicBlock(nn.Module):
    # as CIFAR's ResNets are often written: a shortcut, ReLU as a function
    def __init__(self, cin, cout):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    # pre-activation, with torchvision's names
    downsample = None

    def __init__(self, channels):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        out = self.conv1(functional.relu(self.bn1(x)))
        return x + self.conv2(functional.relu(self.bn2(out)))


class OneRelu(nn.Module):
    # its one ReLU stands in the sequence and after it
    def __init__(self, channels):
        super().__init__()
        self.relu = nn.ReLU()
        layers = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), self.relu
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.relu(self.body(x) - x)


def build(width, image_size, image_channels):
    first = BasicBlock(image_channels, 8)
    rest = [nn.Sequential(nn.AvgPool2d(2), block(8)) for block in (Bottleneck, OneRelu)]
    return Backbone((first, *rest), (8, 8, 8), nn.Linear)
"""


def test_a_users_own_network_is_that_network(tmp_path):
    file = tmp_path / "own_blocks.py"
    file.write_text(OWN_BLOCKS)
    config = BASE.with_(backbone=str(file), alpha=(3.0,))
    data = load(config)
    ours, plain = CapturedRun(config.with_(precision="bf16"), data, "cpu"), Run(config)
    assert "fused" not in ours.path
    images = torch.randn(16, 1, 8, 8)
    with torch.no_grad():
        found, expected = ours.forward(images), plain.forward(images)
    for mine, theirs in zip(found, expected, strict=True):
        for one, two in zip(mine, theirs, strict=True):
            assert float((one - two).norm()) < 0.03 * float(two.norm())
    assert ours.train_epoch(data.fit, 0) == pytest.approx(plain.train_epoch(data.fit, 0), rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_user_freezes_stays(tmp_path, precision):
    file = tmp_path / "frozen.py"
    freeze = "    first.requires_grad_(False)\n    return Backbone"
    file.write_text(OWN_BLOCKS.replace("    return Backbone", freeze))
    config = BASE.with_(backbone=str(file), alpha=(3.0,), precision=precision)
    data = load(config)
    runs = CapturedRun(config, data, "cpu"), Run(config)
    losses = []
    for run in runs:
        before = {name: p.detach().clone() for name, p in run.network.named_parameters()}
        losses.append(run.train_epoch(data.fit, 0))
        for name, now in run.network.named_parameters():
            assert torch.equal(now, before[name]) == name.startswith("stages.0."), name
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def fails(
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], Exception],
    times: int = 9,
    hidden: bool = True,
) -> None:
    """The first few captured runs fail, hidden by the end of a capture that the error has left."""
    left = [times]

    class Failing(CapturedRun):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            left[0] -= 1
            if left[0] >= 0:
                try:
                    raise error()
                finally:
                    if hidden:
                        raise RuntimeError("CUDA error: capturing stream has unjoined work")

    monkeypatch.setattr(opening, "CapturedRun", Failing)
    monkeypatch.setattr(opening, "_idle", [])
    monkeypatch.setattr(opening, "_never", {})


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("kind", [RuntimeError, NotImplementedError, TypeError, AttributeError])
def test_a_run_that_cannot_be_captured_goes_step_by_step_and_says_why(kind, hidden, monkeypatch):
    fails(monkeypatch, lambda: kind("it was\nthis"), hidden=hidden)
    text = "no CUDA graph, .*: it was this$"
    with pytest.warns(UserWarning, match=text), opened(BASE, load(BASE), "cpu") as run:
        assert type(run) is Run
    assert opening._idle == []
    monkeypatch.setattr(opening, "_tried", lambda *_: 1 / 0)  # not tried again for the next trial
    other = BASE.with_(seed=1, alpha=(9.0,))
    with pytest.warns(UserWarning, match=text), opened(other, load(other), "cpu") as run:
        assert type(run) is Run


def test_where_memory_is_short_idle_runs_are_given_up_and_then_workers_are(monkeypatch):
    data, memory = load(BASE), torch.OutOfMemoryError("CUDA out of memory.")
    fails(monkeypatch, lambda: memory, times=1)
    monkeypatch.setattr(opening, "_idle", [CapturedRun(BASE.with_(batch_size=16), data, "cpu")])
    idle = weakref.ref(opening._idle[0])
    opening._made(BASE, data, "cpu")
    assert opening._idle == [] and idle() is None
    fails(monkeypatch, lambda: RuntimeError("CUDA error: out of memory"))
    with pytest.raises(InputError, match="too little memory .* batches of 32 .*fewer --workers"):
        opening._made(BASE, data, "cpu")


def test_what_the_user_has_to_mend_is_told_as_it_is(monkeypatch):
    fails(monkeypatch, lambda: InputError("your file"))
    with pytest.raises(InputError, match="your file"):
        opening._made(BASE, load(BASE), "cpu")


class Stream:
    """A stream of a GPU that is not there."""

    def __init__(self) -> None:
        self.waits: list[str] = []

    def wait_stream(self, other: object) -> None:
        self.waits.append("before")

    def synchronize(self) -> None:
        self.waits.append("after")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> CapturedRun:
    """A run that takes itself to be on a GPU; what it launches is done at once."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(stream))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "another pool")
    run = CapturedRun(BASE, load(BASE), "cpu")
    run.stream = Stream()  # type: ignore[assignment]
    return run


def test_scoring_that_cannot_be_captured_is_launched_by_itself(on_gpu, monkeypatch):
    tried = []

    def capture(mine: Pass, body: Any, *_: Any) -> None:
        tried.append(mine)
        mine.run(body)  # the warm-up counts, too
        raise RuntimeError("not this")

    monkeypatch.setattr(Pass, "capture", capture)
    data = on_gpu.data
    first = on_gpu.score(data.score, 0)
    with pytest.warns(UserWarning, match="no CUDA graph of scoring: not this"):
        second = on_gpu.score(data.score, 0)
    assert first == second == on_gpu.score(data.score, 0)
    assert tried == [on_gpu._scoring]


def test_an_interrupt_is_none_of_a_captures_failures(on_gpu, monkeypatch):
    def capture(*_: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error")

    monkeypatch.setattr(Pass, "capture", capture)
    data = on_gpu.data
    on_gpu.score(data.score, 0)
    with pytest.raises(KeyboardInterrupt):
        on_gpu.score(data.score, 0)


def test_a_step_that_cannot_be_captured_with_branches_is_without(on_gpu, monkeypatch):
    pools = []

    def capture(mine: Pass, body: Any, stream: object, pool: object) -> None:
        pools.append(pool)
        if on_gpu._branches.apart:
            raise RuntimeError("not so")

    monkeypatch.setattr(Pass, "capture", capture)
    on_gpu._capture()
    assert pools == [None]
    on_gpu._branches._streams = [Stream(), Stream()]
    with pytest.warns(UserWarning, match="one after another: not so"):
        on_gpu._capture()
    assert pools == [None, None, "another pool"] and not on_gpu._branches.apart
    monkeypatch.setattr(Pass, "capture", lambda *_: (_ for _ in ()).throw(RuntimeError("nor so")))
    with pytest.raises(RuntimeError, match="nor so"):
        on_gpu._capture()


def test_branches_come_together_after_an_error(monkeypatch):
    run = CapturedRun(BASE, load(BASE), "cpu")
    joined = []
    monkeypatch.setattr(run._branches, "join", lambda *_: joined.append("here"))
    monkeypatch.setattr(captured, "loss", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run._train(torch.arange(4))
    assert joined == ["here"]


@pytest.mark.parametrize("does", ["train_epoch", "score"])
def test_what_was_launched_is_waited_for_after_an_interrupt(does, on_gpu, monkeypatch):
    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pass, "run", cut)
    data = on_gpu.data
    images = data.fit if does == "train_epoch" else data.score
    on_gpu.stream.waits.clear()
    with pytest.raises(KeyboardInterrupt):
        getattr(on_gpu, does)(images, 0)
    assert on_gpu.stream.waits[-1] == "after"


def test_a_state_is_written_and_read_on_the_runs_stream(on_gpu, monkeypatch, tmp_path):
    inside = []
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext(inside.append("in")))
    for name in ("write", "read"):
        function = getattr(checkpoints, name)

        def asked(*given: Any, name: str = name, to: Any = function, **how: Any) -> Any:
            inside.append(name)
            return to(*given, **how)

        monkeypatch.setattr(checkpoints, name, asked)
    on_gpu.save(tmp_path / "run", [])
    assert on_gpu.restore(tmp_path / "run") == []
    assert inside == ["in", "write", "in", "read"]
    assert on_gpu.temperature(0) == BASE.temperature and inside[-1] == "in"
