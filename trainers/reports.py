"""What one epoch says. Every record here goes to JSON and back unchanged."""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ExitPoint(Record):
    """One exit of one network: what it costs and how often it is right."""

    exit: int = Field(ge=1, description="1 = shallowest")
    flops: int = Field(ge=0, description="per image, Table 1's convention: this head only")
    flops_cascade: int = Field(ge=0, description="per image, earlier heads too")
    accuracy: float = Field(ge=0, le=1, description="top-1, fraction")
    top5: float = Field(ge=0, le=1, description="top-5, fraction")


class BudgetPoint(NamedTuple):
    """Budgeted batch classification at one mean cost. A tuple, since reports hold many.

    Attributes:
        flops: Mean per image, earlier heads too.
        top1, top5: Fractions.
    """

    flops: Annotated[int, Field(ge=0)]
    top1: Annotated[float, Field(ge=0, le=1)]
    top5: Annotated[float, Field(ge=0, le=1)]


class EpochReport(Record):
    """One completed epoch of training."""

    epoch: int = Field(ge=1, description="completed epochs")
    loss: float | None = Field(description="nats, mean over images; None if it was not finite")
    seconds: float = Field(ge=0, description="training and evaluation of this epoch")
    split: Literal["validation", "test"] = Field(description="where the accuracies come from")
    exits: tuple[ExitPoint, ...] = Field(description="shallow first; empty if not evaluated")
    raw: tuple[float, ...] = Field(
        default=(),
        description="(M,), accuracy of each exit without averaging, where `exits` are those of the "
        "averaged weights; else empty",
    )
    teachers: tuple[float, ...] = Field(default=(), description="accuracy of each teacher")
    lessons: tuple[float, ...] = Field(
        default=(),
        description="(M,), accuracy of what each exit learns from: the softmaxes of its teachers "
        "at T, weighted by W; empty without teachers, meaningless of an exit that has none",
    )
    temperature: float | None = Field(
        default=None, description="T as the epoch left it; None where nothing teaches"
    )
    mix: tuple[tuple[float, ...], ...] = Field(
        default=(), description="(N, M), who composes each teacher, mean over images"
    )
    mix_entropy: tuple[float, ...] = Field(
        default=(), description="(N,), nats, of each image's mix, mean over images; ln M at most"
    )
    path: str = Field(default="", description="which way through a step, and the precision")
    budget: tuple[BudgetPoint, ...] = Field(
        default=(), description="dynamic inference by rising cost; empty without held-out images"
    )

    memory: int | None = Field(
        default=None,
        ge=0,
        description="bytes that the run's process held at most by then, libraries and all; on CUDA "
        "of its allocator",
    )
    hits: str = Field(
        default="",
        description="which held-out images each exit has right (`trainers.hits`), in the last "
        "report of a run that was asked for them",
    )

    @property
    def diverged(self) -> bool:
        """Whether the loss was not finite: the run has ended here."""
        return self.loss is None

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Top-1 accuracy of each exit, shallow first."""
        return tuple(point.accuracy for point in self.exits)
