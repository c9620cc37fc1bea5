"""TrialConfig: everything that decides one run, in one frozen record.

The flags of the command line, the search's trials, the storage and the exported YAML are all made
from these fields: a hyper-parameter is declared here and nowhere else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from trainers import catalog, own
from trainers.catalog import InputError
from trainers.own_schemes import check
from trainers.reports import Record
from trainers.schemes import scheme_named

# ImageNet's way, 256 pixels to cut 224 from; small images have no border to spare.
CUT_FROM, CUT_SHARE = 64, 7 / 8
MOST_PIXELS = 4096  # a side

Augmentation = Literal["none", "crop_flip", "autoaugment"]


class TrialConfig(Record):
    """One run of training: data, network, teachers, recipe.

    Made from a data set's name and whatever differs from its defaults:
    `TrialConfig(dataset="cifar100", alpha=3)` is the paper's VGG16 over 300 epochs.

    Raises:
        InputError: One line that names the field, what it takes and what it got.
    """

    schema_version: Literal[1] = 1

    dataset: str = Field("digits", description="a data set's name, or a folder of class folders")
    classes: int = Field(ge=2, description="number of classes (comes with the data set)")
    image_size: int = Field(ge=1, description="pixels a side (comes with the data set)")
    resize: int | None = Field(
        None,
        ge=1,
        le=MOST_PIXELS,
        description="class folders of your own: make RGB squares of N pixels of images of any "
        "shape; from 64 on they are kept a seventh larger and training cuts them at random",
    )
    limit_train: int | None = Field(
        None,
        ge=1,
        description="train on a stratified N of the images",
    )
    validation: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the training images held out (digits: always four fifths)",
    )
    split_seed: int = Field(0, ge=0, description="seed of the hold-out and of --limit-train")

    backbone: str = Field("cnn4", description="a backbone's name, or a Python file of your own")
    width: float = Field(1.0, gt=0, le=8, description="multiplies the channels of the backbone")

    scheme: str = Field(
        "mate", description="who teaches whom: see `automate schemes`; or a Python file of your own"
    )
    alpha: tuple[float, ...] = Field(
        (3.0,),
        description="what the primary teacher weighs beyond 1, Eq. 6: one value or one per exit",
    )
    alpha_teacher: tuple[float, ...] | None = Field(
        None, description="the teachers' own alpha', Eq. 7 (none: the same as alpha, Eq. 8)"
    )
    kd_weight: float = Field(1.0, ge=0, le=1e4, description="multiplies the whole distillation")
    temperature: float = Field(3.0, gt=0, le=1e3, description="T, softens teachers and students")
    temperatures: tuple[float, ...] | None = Field(
        None, description="T in equal parts of the epochs, one after another (none: temperature)"
    )
    t_squared: bool = Field(False, description="multiply the distillation by T squared")
    kl: Literal["forward", "reverse"] = Field(
        "forward", description="forward: KL(teacher || student); reverse: KL(student || teacher)"
    )
    ramp_up: int = Field(
        0, ge=0, description="epochs over which the distillation grows, exp(-5 (1 - t/R)^2)"
    )
    attached: bool = Field(
        False,
        description="detach nothing: the exits learn through their teachers too (ONE, OKDDip)",
    )
    exit_weights: tuple[float, ...] | None = Field(
        None,
        description="weight of each exit's own cross-entropy, one value per exit (none: 1, Eq. 2)",
    )
    gate_input: Literal["all", "own"] = Field(
        "all", description="what a gate sees: the features of all exits, or of its own (mate_gate)"
    )
    mix_width: float = Field(
        0.125, gt=0, le=1, description="query and key width as a share of the features (attention)"
    )
    mix_scale: float | None = Field(
        None, gt=0, description="factor on the attention scores; 1 is Eq. 4 (none: 1/sqrt(width))"
    )
    mix_init: float = Field(1.0, ge=0, description="factor on the weight network's initial weights")
    mix_lr: float = Field(1.0, ge=0, description="the weight network's lr as a multiple of lr")

    epochs: int = Field(30, ge=1, le=100_000, description="full length of a run")
    schedule: Literal["step", "cosine", "constant"] = Field(
        "step", description="step: lr / 10 at half and at three quarters of the epochs"
    )
    batch_size: int = Field(128, ge=2, description="images a step")
    lr: float = Field(0.1, gt=0, description="initial learning rate of SGD")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="of SGD, on all parameters")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="score and keep a moving average of the weights, its decay a step (0: none)",
    )
    augmentation: Augmentation = Field(
        "crop_flip",
        description="crop_flip: pad by an eighth, random crop, random mirror; autoaugment: these, "
        "the CIFAR-10 policy of AutoAugment, and Cutout of half the side",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="bf16: autocast; a search that is not told measures which is faster on a CPU",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, order and augmentation")

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(one_line(error)) from None

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """The record from a mapping, e.g. a stored or exported one. Raises InputError."""
        if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
            raise InputError("a config needs to be a mapping of field names to values")
        return cls(**fields)

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated (model_copy would not be)."""
        if changes.get("resize") is not None:
            changes = {"image_size": changes["resize"], **changes}
        return type(self)(**{**self.model_dump(), **changes})

    @property
    def exits(self) -> int:
        """Number of exits M."""
        if not scheme_named(self.scheme).multi_exit:
            return 1
        return own.exits_of(self.backbone)

    @property
    def digests(self) -> dict[str, str | None]:
        """What the user's files hold, by the field that names one; None of what is built in."""
        return {name: own.file_digest(getattr(self, name)) for name in own.FILES}

    @property
    def tells_top5(self) -> bool:
        """Whether top-5 accuracy says anything: of five classes or fewer it is always 1."""
        return self.classes > 5

    @property
    def channels(self) -> int:
        """Channels of an image: 1 or 3."""
        entry = catalog.DATASETS.get(self.dataset)
        return entry.channels if entry else 3

    @property
    def stored_size(self) -> int:
        """Side of the images as they are decoded, from which `image_size` is cut (pixels)."""
        if self.resize is not None and self.resize >= CUT_FROM:
            return round(self.resize / CUT_SHARE)
        entry = catalog.DATASETS.get(self.dataset)
        return entry.stored if entry and entry.stored else self.image_size

    @property
    def milestones(self) -> tuple[int, ...]:
        """Completed epochs after which the learning rate drops to a tenth; () without steps."""
        if self.schedule != "step":
            return ()
        return max(1, self.epochs // 2), max(1, self.epochs * 3 // 4)

    def alpha_per_exit(self) -> tuple[float, ...]:
        """α_i, M values, whether one or M were given."""
        return self.alpha * self.exits if len(self.alpha) == 1 else self.alpha

    def alpha_teacher_per_exit(self) -> tuple[float, ...]:
        """α'_i of Eq. 7, M values; α_i unless given."""
        values = self.alpha if self.alpha_teacher is None else self.alpha_teacher
        return values * self.exits if len(values) == 1 else values

    @model_validator(mode="before")
    @classmethod
    def _dataset_defaults(cls, fields: Any) -> Any:
        """What the data set brings (classes, backbone, epochs, ...) where nothing is said."""
        if not isinstance(fields, dict):
            return fields
        name = fields.get("dataset", "digits")
        if not isinstance(name, str):
            return fields
        entry = catalog.DATASETS.get(name)
        if entry is not None and fields.get("resize") is not None:
            raise InputError(
                f"resize is for class folders of your own (--dataset path/to/tree), {name} has "
                "a size of its own"
            )
        if entry is None:
            if not catalog.is_path(name):
                here = f", ./{name} for the one here" if Path(name).is_dir() else ""
                hint = f"or a folder's path{here}"
                raise catalog.unknown("dataset", name, catalog.DATASETS, hint)
            resize = fields.get("resize")
            if isinstance(resize, int) and not 1 <= resize <= MOST_PIXELS:
                raise InputError(f"resize needs to be from 1 to {MOST_PIXELS}, got {resize}")
            return fields if resize is None else {"image_size": resize, **fields}
        brought = {"classes": entry.classes, "image_size": entry.image_size, **entry.defaults}
        return {**brought, **fields}

    @field_validator("alpha", "alpha_teacher", "temperatures", "exit_weights", mode="before")
    @classmethod
    def _one_value_is_a_tuple(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        exits = self.exits  # refuses an unknown scheme or backbone
        least = scheme_named(self.scheme).least_exits
        if exits < least:
            raise InputError(
                f"scheme {self.scheme} needs {least} exits or more, {self.backbone} has {exits}"
            )
        entry = catalog.BACKBONES.get(self.backbone)
        if entry and self.image_size not in entry.image_sizes:
            takes = " or ".join(str(size) for size in entry.image_sizes)
            every = sorted({s for one in catalog.BACKBONES.values() for s in one.image_sizes})
            if self.image_size not in every:
                *some, last = map(str, every)
                raise InputError(
                    f"no built-in network takes images of {self.image_size}x{self.image_size} "
                    f"pixels, as {self.dataset} has: --resize {', '.join(some)} or {last} makes "
                    "them fit, or take a Python file of your own, --backbone FILE "
                    "(`automate backbones FILE` checks it)"
                )
            fit = "" if catalog.DATASETS.get(self.dataset) else f", or --resize {takes}"
            raise InputError(
                f"backbone {self.backbone} takes images of {takes} pixels, "
                f"{self.dataset} has {self.image_size}: choose another --backbone{fit}"
            )
        for name, values in (("alpha", self.alpha), ("alpha_teacher", self.alpha_teacher)):
            if values is None:
                continue
            if len(values) not in (1, exits):
                counts = "1 value" if exits == 1 else f"1 or {exits} values"
                raise InputError(f"{name} needs {counts}, got {len(values)}")
            if any(not 0 <= value <= 1e6 for value in values):
                raise InputError(f"{name} needs values from 0 to 1e6, got {list(values)}")
        if self.resize is not None and self.image_size != self.resize:
            raise InputError(
                f"resize is {self.resize} and image_size {self.image_size}: give resize alone, or "
                "both the same value"
            )
        weights = self.exit_weights
        if weights is not None and len(weights) != exits:
            raise InputError(f"exit_weights needs {exits} values, got {len(weights)}")
        if weights is not None and not all(0 <= value <= 1e4 for value in weights):
            raise InputError(f"exit_weights needs values from 0 to 1e4, got {list(weights)}")
        phases = self.temperatures
        if phases is not None and not (phases and all(0 < value <= 1e3 for value in phases)):
            raise InputError(f"temperatures needs values above 0, up to 1e3, got {list(phases)}")
        if catalog.is_path(self.scheme):
            scheme = scheme_named(self.scheme)
            check(self.scheme, scheme, self.alpha_per_exit(), self.alpha_teacher_per_exit())
        return self


def one_line(error: ValidationError) -> str:
    """Pydantic's findings as one line: `temperature: input should be greater than 0, got 0`."""
    lines = []
    for finding in error.errors(include_url=False):
        cause = finding.get("ctx", {}).get("error")
        name = ".".join(str(part) for part in finding["loc"])
        if isinstance(cause, InputError):
            lines.append(str(cause))
        elif finding["type"] == "missing":
            lines.append(f"{name} is missing (only the built-in data sets bring their own)")
        elif finding["type"] == "extra_forbidden":
            lines.append(str(catalog.unknown("field", name, TrialConfig.model_fields)))
        else:
            text = finding["msg"][0].lower() + finding["msg"][1:]
            shown = repr(finding["input"])
            lines.append(f"{name}: {text}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")
    return "; ".join(dict.fromkeys(lines))  # a plan of several configs says it of each
