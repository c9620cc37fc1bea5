"""What there is, as data: data sets and backbones with their sizes and defaults.

Nothing here imports torch, so flags, help and validation stay instant. The functions behind
the names are in `trainers.data` and `trainers.backbones`; a test holds both sides together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches


class InputError(ValueError):
    """Something that the user gave is wrong; the message is one line that says what to do."""


def shortened(text: object, most: int = 300) -> str:
    """A text as one line of at most so many characters; what is longer ends in "..." after a word.

    Args:
        text: E.g. an error from elsewhere.
        most: At least 4.
    """
    line = " ".join(str(text).split())
    if len(line) <= most:
        return line
    kept = line[: most - 3]
    words, space, rest = kept.rpartition(" ")
    whole = not space or line[len(kept)] == " " or len(rest) > most // 2  # or a word that is long
    return f"{(kept if whole else words).rstrip(' ,;:')}..."


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> InputError:
    """The error for a name that is not in a table: lists the table and the nearest name.

    Args:
        kind: What is named, e.g. "backbone".
        name: What was given.
        known: The names there are.
        hint: What else would be accepted, e.g. "or a path to a .py file".
    """
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1)
    guess = f" (did you mean '{nearest[0]}'?)" if nearest else ""
    extra = f" ({hint})" if hint else ""
    return InputError(f"unknown {kind} {name!r}{guess}: known are {', '.join(names)}{extra}")


@dataclass(frozen=True)
class Archive:
    """A published file to download.

    Attributes:
        url: Where its makers keep it.
        size: Bytes.
        digest: "md5:..." or "sha256:..." of the published file.
    """

    url: str
    size: int
    digest: str


@dataclass(frozen=True)
class DatasetEntry:
    """A data set: its sizes, and the settings that it brings to a run.

    Attributes:
        title: One line for listings.
        classes: Number of classes K.
        image_size: Height and width, pixels.
        channels: 1 (grey) or 3 (RGB).
        mean, std: Per-channel normalisation, of pixels scaled to 0..1.
        train, test: Number of images of the published splits.
        get: How to get it, one line.
        archives: What `automate datasets fetch` downloads.
        note: What whoever downloads it should know first.
        stored: Side of the decoded images where crops are cut from larger ones, pixels.
        defaults: Fields of `TrialConfig` that differ from the record's own defaults.
        trials: Default size of a search.
    """

    title: str
    classes: int
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    test: int
    get: str
    defaults: dict[str, object] = field(default_factory=dict)
    trials: int = 30
    archives: tuple[Archive, ...] = ()
    note: str = ""
    stored: int | None = None

    @property
    def download(self) -> int:
        """Bytes to download."""
        return sum(archive.size for archive in self.archives)

    @property
    def decoded(self) -> int:
        """Bytes of the decoded images in the cache, both splits."""
        return (self.train + self.test) * self.channels * (self.stored or self.image_size) ** 2


CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# From scratch at 224x224 (Section 4.4): 32 images a batch, 200 epochs.
FINE_GRAINED: dict[str, object] = {"backbone": "resnet18", "epochs": 200, "batch_size": 32}

DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(
        title="scikit-learn's hand-written digits, 8x8 grey, embedded; 717 more are held out",
        classes=10,
        image_size=8,
        channels=1,
        mean=(0.3053,),
        std=(0.3760,),
        train=180,
        test=900,
        get="comes with scikit-learn",
        defaults={
            "backbone": "cnn4",
            "epochs": 30,
            "batch_size": 32,
            "augmentation": "none",
        },
        trials=20,
    ),
    "cifar100": DatasetEntry(
        title="CIFAR-100, 32x32 RGB, 100 classes (Krizhevsky & Hinton 2009)",
        classes=100,
        image_size=32,
        channels=3,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        train=50_000,
        test=10_000,
        get="`automate datasets fetch cifar100` downloads it (169 MB), or point --data-root at "
        "class folders train/<class>/*.png and test/<class>/*.png",
        defaults={"backbone": "vgg16", "epochs": 300, "batch_size": 128},
        archives=(
            Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                169_001_437,
                "md5:eb9058c3a382ffc7106e4002c42a8d85",  # torchvision
            ),
        ),
        note="its host has been slow enough to take an hour; --mirror names another",
    ),
    "tinyimagenet": DatasetEntry(
        title="Tiny ImageNet, 64x64 RGB resized to 32x32, validation as test (Le & Yang 2015)",
        classes=200,
        image_size=32,
        channels=3,
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
        train=100_000,
        test=10_000,
        get="`automate datasets fetch tinyimagenet` downloads it (248 MB), or point --data-root at "
        "tiny-imagenet-200/ (train/<wnid>/images/, val/val_annotations.txt)",
        defaults={"backbone": "vgg16", "epochs": 300, "batch_size": 128},
        archives=(
            Archive(
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                248_100_043,
                "md5:90528d7ca1a48142e341f4ef8d21d0de",  # Avalanche and many more
            ),
        ),
    ),
    "cub200": DatasetEntry(
        title="CUB-200-2011, 200 kinds of birds at 224x224 (Wah et al. 2011)",
        classes=200,
        image_size=224,
        stored=256,
        channels=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=5_994,
        test=5_794,
        get="`automate datasets fetch cub200` downloads it (1.2 GB), or point --data-root at "
        "CUB_200_2011/ (images.txt, image_class_labels.txt, train_test_split.txt, images/)",
        defaults=FINE_GRAINED,
        archives=(
            Archive(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                1_150_585_339,
                "md5:97eceeb196236b17998738112f37df78",  # CaltechDATA, Avalanche
            ),
        ),
    ),
    "stanford_dogs": DatasetEntry(
        title="Stanford Dogs, 120 breeds at 224x224 (Khosla et al. 2011)",
        classes=120,
        image_size=224,
        stored=256,
        channels=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=12_000,
        test=8_580,
        get="`automate datasets fetch stanford_dogs` downloads it (794 MB), or point --data-root "
        "at a folder with Images/, train_list.mat and test_list.mat",
        defaults=FINE_GRAINED,
        archives=(
            Archive(  # both digests: TensorFlow Datasets
                "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",
                793_579_520,
                "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            ),
            Archive(
                "http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar",
                481_280,
                "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            ),
        ),
    ),
    "fgvc_aircraft": DatasetEntry(
        title="FGVC-Aircraft, 100 variants at 224x224, trained on trainval (Maji et al. 2013)",
        classes=100,
        image_size=224,
        stored=256,
        channels=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=6_667,
        test=3_333,
        get="`automate datasets fetch fgvc_aircraft` downloads it (2.8 GB), or point --data-root "
        "at fgvc-aircraft-2013b/ (data/images/, data/variants.txt, data/images_variant_*.txt)",
        defaults=FINE_GRAINED,
        archives=(
            Archive(
                "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
                "fgvc-aircraft-2013b.tar.gz",
                2_753_340_328,
                "md5:d4acdd33327262359767eeaa97a4f732",  # torch for R, Meta-Album and more
            ),
        ),
        note="its images are for non-commercial research only",
    ),
}


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone: how many exits it has and which images it takes."""

    title: str
    exits: int
    image_sizes: tuple[int, ...]


RESNET_SIZES = (32, 224)  # the stem follows the size

BACKBONES: dict[str, BackboneEntry] = {
    "cnn4": BackboneEntry("four plain convolutions, for 8x8 digits", 4, (8,)),
    "vgg16": BackboneEntry("VGG16 with batch norm (Simonyan & Zisserman 2015)", 4, (32,)),
    "resnet18": BackboneEntry("ResNet18 (He et al. 2016)", 4, RESNET_SIZES),
    "resnet50": BackboneEntry("ResNet50 (He et al. 2016)", 4, RESNET_SIZES),
    "resnext50": BackboneEntry("ResNeXt50 32x4d (Xie et al. 2017)", 4, RESNET_SIZES),
    "wrn_14_4": BackboneEntry("WRN-14-4: 4 bottlenecks, 4 times as wide", 4, RESNET_SIZES),
    "wrn_50_2": BackboneEntry("WRN-50-2 (Zagoruyko & Komodakis 2016)", 4, RESNET_SIZES),
    "densenet121": BackboneEntry("DenseNet121, taps after its dense blocks", 4, (32,)),
    "msdnet": BackboneEntry("MSDNet, 15 layers (Huang et al. 2018)", 5, (32,)),
}


def is_path(name: str) -> bool:
    """Whether a data set, space, scheme or backbone is given as a path, not by its name."""
    return "/" in name or "\\" in name or name.endswith(".py") or name.startswith(".")


def last_part(name: str) -> str:
    """Of a path the last part, of a name the name: what people are shown where it is short."""
    return name.rstrip("/").split("/")[-1]
