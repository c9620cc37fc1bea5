"""A run on a GPU whose epochs are replays of CUDA graphs.

- The images lie on the device; an epoch's are augmented there before it begins, in its order.
- Convolutions and linear layers compute in bf16 from copies of their fp32 weights, which are
  refreshed by one multi-tensor cast a step (autocast casts each of them by itself); everything else
  stays in fp32. Without bf16 the weights themselves are used.
- Whatever differs from epoch to epoch or between configs of a kind (lr, T, λ, α's W, exit weights)
  is read from tensors on the device, so a captured run is loaded with the next config, not made
  anew.
- Nothing is read back before an epoch's end. Each run has a stream of its own, so that several in
  one process share a GPU; these stay a few steps ahead of it, one alone an epoch.

The state that is saved is the same as an ordinary run's.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainers import catalog
from trainers.branches import Branches, branch
from trainers.config import TrialConfig
from trainers.data import Data, Images, score_batch
from trainers.draws import Draws, hosts_state
from trainers.exits import MultiExitNet
from trainers.fused import checked, fuse
from trainers.graphs import Pass, Shown, has_graphs, living, own_stream
from trainers.losses import Knobs, knobs, loss
from trainers.reports import EpochReport
from trainers.run import Run, fresh, learning_rate
from trainers.schemes import scheme_named
from trainers.scoring import Tally
from trainers.teachers import one_expression

# What a graph reads from tensors, or never sees: runs that differ in these alone share one.
LOADED = (
    "alpha", "alpha_teacher", "kd_weight", "temperature", "temperatures", "ramp_up", "lr", "mix_lr",
    "mix_init", "schedule", "epochs", "seed", "split_seed", "limit_train", "validation",
    "augmentation",
)  # fmt: skip
# ... and of these alone where a user's weight network has the config: it may read any other.
UNREAD = ("lr", "schedule", "seed", "split_seed", "limit_train", "validation", "augmentation")


def kind_of(config: TrialConfig, data: Data, device: str) -> tuple[Any, ...]:
    """What two runs need to have in common to be run by the same graphs."""
    own_network = isinstance(scheme_named(config.scheme).mix, type)
    fixed = config.model_dump(exclude=set(UNREAD if own_network else LOADED))
    fixed["exit_weights"] = config.exit_weights is None
    held = 0 if data.calibrate is None else len(data.calibrate)
    return (
        device,
        *config.digests.values(),
        one_expression(config),
        len(data.fit),
        len(data.score),
        held,
        repr(sorted(fixed.items())),
    )


def first_error(error: BaseException) -> BaseException:
    """What went wrong first: when a capture is left by an error, its end often raises another."""
    while error.__context__ is not None and not error.__suppress_context__:
        error = error.__context__
    return error


def short_of_memory(error: BaseException) -> bool:
    first = first_error(error)
    return isinstance(first, torch.OutOfMemoryError) or "out of memory" in str(first)


def why(error: BaseException) -> str:
    """In at most 160 characters."""
    first = first_error(error)
    return (" ".join(str(first).split()) or type(first).__name__)[:160]


def _lower(network: nn.Module) -> dict[str, Tensor]:
    """A bf16 copy of each weight and bias of a convolution or linear layer, by its name."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Linear)
    weights = {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, module in network.named_modules()
        if isinstance(module, layers)
        for name, value in module.named_parameters(recurse=False)
    }
    return {
        name: value.detach().bfloat16().requires_grad_(value.requires_grad)  # unless it is frozen
        for name, value in weights.items()
    }


class DrawsError(RuntimeError):
    """A step draws random numbers, as dropout does: those of an epoch begin with its seed, those of
    a graph would go on from whatever ran before, or be the same for ever."""


class CapturedRun(Run):
    """Network, teachers and optimizer of one config, whose epochs run without the host.

    On a CPU the same code runs uncaptured, which is slower than `Run` and there for tests.

    Raises:
        RuntimeError: The network cannot be captured.
    """

    def __init__(self, config: TrialConfig, data: Data, device: str) -> None:
        super().__init__(config, device)
        self.kind = kind_of(config, data, device)
        cuda = has_graphs(self.device)
        self.stream = own_stream(self.device, self) if cuda else None
        self._pool = torch.cuda.graph_pool_handle() if cuda else None
        # every weight of a convolution or linear layer, by network: fp32 -> its bf16 copy
        self._copies: dict[int, dict[str, Tensor]] = {}
        networks = {id(self.network): self.network}
        if self.average is not None:
            averaged = self.average.modules["network"]
            networks[id(averaged)] = averaged
        # A user's network stays as it is: only of ours it is known what uses a layer, and how
        # often. Of one used twice autograd would add the gradients of branches without waiting.
        ours = not catalog.is_path(config.backbone)
        self._fused = self._fuse(list(networks.values())) if ours else ""
        self._branches = Branches(self.device, wanted=ours)
        for key, network in networks.items():
            if ours:
                branch(network, self._branches)
            self._copies[key] = _lower(network) if config.precision == "bf16" else {}
        scalars = torch.zeros(5, device=self.device)
        self._total, self._lrs = scalars[0], (scalars[1], scalars[2])
        weights = None if config.exit_weights is None else torch.ones(config.exits, device=device)
        annealed = self.teachers.annealed
        self._knobs = Knobs(scalars[3] if annealed is None else annealed, scalars[4], weights)
        self._scored, self._never_captured = False, False
        with self._on_stream():
            self._fit = Shown(data.fit)
            self._held = Shown(data.score)
            self._tally = Tally(config.exits, self.teachers.number, len(data.score), self.device)
            self._raw = torch.zeros(config.exits, device=self.device)
            self.load(config, data)
            self._training = Pass(len(data.fit), config.batch_size, self.device, least=2)
            self._scoring = Pass(len(data.score), score_batch(data.score), self.device)
            if cuda:
                living.add(self)
                self._capture()
                self.load(config, data)  # the warm-up has trained

    @property
    def path(self) -> str:
        """How it trains, for people."""
        graphs = "CUDA graphs" if self.stream is not None else "uncaptured"
        return f"{graphs}, {self._fused}{self.config.precision}"

    def _fuse(self, networks: list[MultiExitNet]) -> str:
        """Takes the fused kernels if they can be had. Returns what `path` says of it."""
        if self.config.precision != "bf16":
            return ""
        made = None
        if has_graphs(self.device):
            made = checked(self.device)
            if made is None:
                return ""
        for network in networks:
            fuse(network, made)
        return "fused batch norm, "

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """After what the current stream was asked for.

        What an error leaves there, Ctrl-C too, is waited for: whoever is told of it may free the
        memory that launched steps still read and write.
        """
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            try:
                yield
            except BaseException:
                with suppress(RuntimeError):  # the error itself may be the device's
                    self.stream.synchronize()
                raise

    @contextmanager
    def _joined(self) -> Iterator[None]:
        """After an error the branches come together too: a capture cannot end before."""
        try:
            yield
        except BaseException:
            with suppress(RuntimeError):  # the error itself may have ended the capture
                self._branches.join()
            raise

    def _capture(self) -> None:
        """Captures a step; one without branches, if it cannot be had with them."""
        assert self.stream is not None
        self.network.train()
        self.teachers.train()
        self._set_knobs(0)
        try:
            self._capture_step()
            return
        except DrawsError:
            raise
        except RuntimeError as error:
            if not self._branches.apart or short_of_memory(error):
                raise
            reason = why(error)
        warnings.warn(f"the parts of a step run one after another: {reason}", stacklevel=2)
        self._branches.stop()
        self._pool = torch.cuda.graph_pool_handle()
        self._capture_step()

    def _capture_step(self) -> None:
        assert self.stream is not None
        draws, state = Draws(0, self.device), hosts_state()
        with draws.taken():
            batch = min(self.config.batch_size, len(self.data.fit))
            self._train(torch.arange(batch, device=self.device))
        if draws.drawn or hosts_state() != state:
            raise DrawsError("a step draws random numbers")
        self._training.capture(self._train, self.stream, self._pool)

    def _capture_scoring(self) -> None:
        """Captures a batch of scoring, whose batches are launched by themselves if it fails."""
        assert self.stream is not None
        try:
            self._scoring.capture(self._score, self.stream, self._pool)
        except Exception as error:
            if not isinstance(first_error(error), Exception):  # Ctrl-C
                raise first_error(error) from None
            self._never_captured = True
            warnings.warn(f"no CUDA graph of scoring: {why(error)}", stacklevel=2)
        self._tally.clear()
        self._raw.zero_()

    def load(self, config: TrialConfig, data: Data) -> None:
        """Begins another run of the same kind, with fresh weights."""
        self.config, self.data = config, data
        with self._on_stream(), torch.no_grad():
            network, teachers = fresh(config)
            for mine, made in ((self.network, network), (self.teachers, teachers)):
                theirs = dict([*made.named_parameters(), *made.named_buffers()])
                for name, value in [*mine.named_parameters(), *mine.named_buffers()]:
                    value.copy_(theirs[name])
            scheduled: list[Any] = [self.teachers]
            self.optimizer.begin()
            if self.average is not None:
                self.average.restart()
                scheduled.append(self.average.modules["teachers"])
            for mine in scheduled:
                mine.phases, mine.epochs = teachers.phases, teachers.epochs
            self._held.show(data.score)

    def renew(self) -> None:
        """Back to fresh weights."""
        self.load(self.config, self.data)

    def forward(self, images: Tensor, network: MultiExitNet | None = None) -> tuple[Tensor, Tensor]:
        """Features (M, B, C) and logits (M, B, K) in float32."""
        network = network or self.network
        copies = self._copies[id(network)]
        images = images.contiguous(memory_format=torch.channels_last)
        if copies:
            images = images.bfloat16()
        features, logits = functional_call(network, copies, (images,))
        return features.float(), logits.float()

    def _refresh(self, network: MultiExitNet) -> None:
        """The bf16 copies of a network's weights are its weights again."""
        if copies := self._copies[id(network)]:
            weights = dict(network.named_parameters())
            torch._foreach_copy_(list(copies.values()), [weights[name] for name in copies])

    def _set_knobs(self, epoch: int) -> None:
        config = self.config
        lr = learning_rate(config, epoch)
        now = knobs(config, self.teachers, epoch)
        for value, tensor in zip((lr, lr * config.mix_lr), self._lrs, strict=True):
            tensor.fill_(value)
        for group, value in zip(
            self.optimizer.param_groups, (lr, lr * config.mix_lr), strict=False
        ):
            group["lr"] = value  # for the saved state
        if not isinstance(now.temperature, Tensor):
            assert isinstance(self._knobs.temperature, Tensor)
            self._knobs.temperature.fill_(now.temperature)
        assert isinstance(self._knobs.strength, Tensor)
        self._knobs.strength.fill_(now.strength)
        if now.exit_weights is not None and self._knobs.exit_weights is not None:
            self._knobs.exit_weights.copy_(now.exit_weights)

    def _train(self, places: Tensor) -> None:
        """One step of SGD on the images at some places of the pass."""
        pixels, labels = self._fit.batch(places)
        with self._joined():
            features, logits = self.forward(pixels)
            value = loss(
                features, logits, labels, self.teachers, self.config, given=self._knobs
            ).total
            self._update(value)
        self.teachers.anneal(logits)
        if self.average is not None:
            self.average.update()
        self._total += value.detach() * len(places)

    def _update(self, value: Tensor) -> None:
        """The gradients of a loss, and SGD with them, as `torch.optim.SGD(fused=True)` does it."""
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        copies = self._copies[id(self.network)]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        leaves = [copies.get(names.get(p, ""), p) for p in parameters]
        found = torch.autograd.grad(value, leaves, allow_unused=True)
        self._branches.join(found)
        with torch.no_grad():
            grads = {p: g for p, g in zip(parameters, found, strict=True) if g is not None}
            other = [p for p, g in grads.items() if g.dtype != p.dtype or g.stride() != p.stride()]
            if other:
                cast = [torch.empty_like(p) for p in other]
                torch._foreach_copy_(cast, [grads[p] for p in other])
                grads.update(zip(other, cast, strict=True))
            for group, lr in zip(self.optimizer.param_groups, self._lrs, strict=False):
                mine = [p for p in group["params"] if p in grads]
                self.optimizer.update(group, mine, [grads[p] for p in mine], lr)
            self._refresh(self.network)

    def train_epoch(self, images: Images, epoch: int) -> float:
        """One pass over the images. Returns the mean loss, nats; not finite if it diverged."""
        self.network.train()
        self.teachers.train()
        with self._on_stream(), torch.no_grad():
            self._fit.show(images, self.config, epoch)
            self._set_knobs(epoch)
            self._refresh(self.network)
            self._total.zero_()
        with self._on_stream():
            self._training.run(self._train)
            return float(self._total) / self._training.images

    def _score(self, places: Tensor) -> None:
        pixels, labels = self._held.batch(places)
        network, teachers = self._judged
        with self._joined():
            features, logits = self.forward(pixels, network)
        self._tally.exits(logits, labels, places)
        self._tally.teachers(features, logits, labels, teachers, self._knobs.temperature)
        if self.average is not None:
            with self._joined():
                right = self.forward(pixels)[1].argmax(dim=-1) == labels
            self._raw += right.sum(dim=1)

    @torch.no_grad()
    def counted(self, images: Images, epoch: int) -> tuple[Tally, tuple[float, ...]]:
        """As `Run.counted`; of the images that the run is scored on by replays."""
        self._judged = self.judged()
        for network in {id(n): n for n in (self.network.eval(), self._judged[0])}.values():
            self._refresh(network)
        if images is not self.data.score:
            return super().counted(images, epoch)
        self._set_knobs(epoch)
        self._tally.clear()
        self._raw.zero_()
        # A first time is the warm-up of the second: whoever scores once captures nothing.
        may = self._scored and self.stream is not None and not self._never_captured
        if may and not self._scoring.captured:
            self._capture_scoring()
        self._scoring.run(self._score)
        self._scored = True
        raw = () if self.average is None else tuple((self._raw / len(images)).tolist())
        return self._tally, raw

    def score(self, images: Images, epoch: int = 0, **how: Any) -> dict[str, Any]:
        """As `Run.score`."""
        with self._on_stream():
            return super().score(images, epoch, **how)

    def temperature(self, epoch: int) -> float | None:
        """As `Run.temperature`."""
        with self._on_stream():
            return super().temperature(epoch)

    def save(self, path: Path, reports: list[EpochReport]) -> None:
        """As `Run.save`."""
        with self._on_stream():
            super().save(path, reports)

    def restore(self, path: Path) -> list[EpochReport]:
        """As `Run.restore`."""
        with self._on_stream():
            return super().restore(path)
