"""What an unknown hand might give: names of studies, config files, pickles."""

import random
import string
from pathlib import Path
from typing import Any

PIECES = [
    "..", "/", "\\", "~", "", " ", "\0", "\n", "\x1b[2J", "\u202e", "<script>", "&lt;", "%2e%2e",
    "$(touch pwned)", "`id`", "; rm -rf .", "C:", "con", "-rf", "|", "*", "'", '"', "ä", "💥", "a",
    ".",
]  # fmt: skip
EVERY = string.printable + "äß\u2028\ufeff\x00\x7f"


def names(count: int, seed: int = 0) -> list[str]:
    """Paths, control characters, code, and a few that are plain."""
    rng = random.Random(seed)
    made = ["", ".", "..", "/", "/etc/passwd", "a" * 300, "../up", "-x", " ", "a/b", "a\n", "a\0"]
    while len(made) < count:
        if rng.random() < 0.5:
            made.append("".join(rng.choices(PIECES, k=rng.randint(1, 6))))
        else:
            made.append("".join(rng.choices(EVERY, k=rng.choice([1, 5, 40, 101, 300]))))
    return made


GOOD = "config:\n  dataset: digits\n  epochs: 2\n"
CONFIGS = [
    "!!python/object/apply:os.mkdir ['pwned']",
    "config: !!python/object/apply:os.mkdir ['pwned']",
    "config: !!python/name:os.system",
    "config: &a {dataset: digits}\nsource: *a",
    "config: {<<: {dataset: digits}}",
    "config: {dataset: digits, dataset: cifar100}",
    "config: {dataset: digits}\nconfig: {dataset: digits}",
    "config: {dataset: digits, nonsense: 1}",
    "config: {dataset: digits}\nmore: 1",
    "config: []", "config: 3", "config:", "[]", "", "3", "null", "{", "]", "config: {", "\t- a",
    "config: {dataset: [digits]}", "config: {dataset: 3}", "config: {1: 2}", "? [a]\n: b",
    "source: []\nconfig: {dataset: digits}",
    *(f"config: {{dataset: digits, lr: {x}}}" for x in (".nan", ".inf", "-.inf", "-1", "x", "[]")),
    *(f"config: {{dataset: digits, epochs: {x}}}" for x in ("0", "-1", "1.5", ".nan", "1e99", "a")),
    *(f"config: {{dataset: digits, alpha: {x}}}" for x in (".nan", "-1", "[1, 2]", "{}", "[a]")),
    *(f"config: {{dataset: digits, temperature: {x}}}" for x in ("0", "-2", ".nan", "[1, x]")),
    *(f"config: {{dataset: digits, batch_size: {x}}}" for x in ("0", "-5", "1.5", "big")),
    *(f"config: {{dataset: digits, seed: {x}}}" for x in ("-1", "a", "1.5")),
    "config: {dataset: digits, scheme: none_such}",
    "config: {dataset: digits, backbone: none_such}",
    "config: {dataset: digits, augmentation: none_such}",
    "config: {dataset: digits, precision: fp8}",
    "config: {dataset: digits, schedule: up}",
    "config: {dataset: digits, validation: 2}",
    "config: {dataset: digits, width: 0}",
    "config: {dataset: digits, limit_train: 0}",
    "[" * 5000,
    "a: " * 3000,
]  # fmt: skip


class Planted:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))
