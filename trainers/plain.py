"""The trainer that most would write, to compare with: the same network, recipe and loss.

Eager fp32 in NCHW, a `DataLoader` with two workers over PIL images, torchvision's transforms, the
loss as the double loop that the equations print, `torch.optim.SGD` as it comes.
"""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from trainers.augment import PADDING
from trainers.config import TrialConfig
from trainers.data import Images
from trainers.exits import build_network
from trainers.teachers import Attention, Teachers

WORKERS = 2


def plain_loss(
    features: Tensor, logits: Tensor, labels: Tensor, teachers: Teachers, config: TrialConfig
) -> Tensor:
    """Eqs. 2 to 8 as they are printed: exit by exit, teacher by teacher.

    Args:
        features: F (M, B, C). logits: z (M, B, K). labels: (B,).
        teachers: With one weight for both sides (α' = α), as most schemes have.
        config: temperature and kd_weight are read.
    """
    total = logits.new_zeros(())
    for exit_logits in logits:
        total = total + functional.cross_entropy(exit_logits, labels)
    if not teachers.number:
        return total
    mix = _plain_mix(features, logits, teachers)
    temperature = config.temperature
    for j in range(teachers.number):
        teacher = sum(mix[:, j, i, None] * logits[i].detach() for i in range(len(logits)))
        assert isinstance(teacher, Tensor)
        for i in range(len(logits)):
            divergence = functional.kl_div(
                functional.log_softmax(logits[i] / temperature, dim=-1),
                functional.softmax(teacher / temperature, dim=-1),
                reduction="batchmean",
            )
            total = total + config.kd_weight * teachers.w[i, j] * divergence
    return total


def _plain_mix(features: Tensor, logits: Tensor, teachers: Teachers) -> Tensor:
    """(B, N, M); MATE's attention pair by pair (Eq. 4), other mixes as they are."""
    mixer = teachers.mixer
    if type(mixer) is not Attention:
        made: Tensor = teachers(features, logits)[1]
        return made
    features = features.detach()
    rows = []
    for asking in features:
        scores = [(mixer.query(asking) * mixer.key(answering)).sum(-1) for answering in features]
        rows.append(torch.softmax(mixer.scale * torch.stack(scores, dim=-1), dim=-1))
    return torch.stack(rows, dim=1)


class _Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images in memory, transformed one by one."""

    def __init__(self, images: Images, config: TrialConfig) -> None:
        from torchvision import transforms

        arrays = images.pixels.permute(0, 2, 3, 1).numpy()
        self._pictures = [Image.fromarray(a.squeeze(-1) if a.shape[-1] == 1 else a) for a in arrays]
        self._labels = images.labels.tolist()
        augment = []
        if config.augmentation != "none":
            size = config.image_size
            augment = [
                transforms.RandomCrop(size, padding=size // PADDING),
                transforms.RandomHorizontalFlip(),
            ]
        self._transform = transforms.Compose(
            [*augment, transforms.ToTensor(), transforms.Normalize(images.mean, images.std)]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._pictures[index]), self._labels[index]


def plain_loader(images: Images, config: TrialConfig, workers: int = WORKERS) -> DataLoader[object]:
    """Batches of augmented images in random order, epoch after epoch."""
    return DataLoader(
        _Pictures(images, config),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


class PlainRun:
    """Network, teachers and optimizer of one config, as most would write them."""

    def __init__(self, config: TrialConfig) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = build_network(config)
            self.teachers = Teachers(config, self.network.features)
        self.network.train()
        parameters = [*self.network.parameters(), *self.teachers.parameters()]
        self.optimizer = torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of SGD on a batch. Returns its loss, a scalar, nats."""
        features, logits = self.network(images)
        value = plain_loss(features, logits, labels, self.teachers, self.config)
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return value.detach()


def plain_steps(config: TrialConfig, images: Images) -> Iterator[int]:
    """Trains for ever; the number of images of each step."""
    run, loader = PlainRun(config), plain_loader(images, config)
    while True:
        for pixels, labels in loader:
            run.step(pixels, labels)
            yield len(labels)
