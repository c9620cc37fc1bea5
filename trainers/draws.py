"""What one run draws, apart from what the other threads of its process draw."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")
_drawing = threading.Lock()  # torch's default generators are the process's, for all its threads


class Draws:
    """What is drawn from torch's default generators for one run, whatever other threads draw.

    Args:
        seed: Where they begin.
        device: What is drawn on, beside the CPU.
    """

    def __init__(self, seed: int, device: torch.device = CPU) -> None:
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])
        self._states = self._begin = [
            torch.Generator(generator.device).manual_seed(seed).get_state()
            for generator in self._generators
        ]

    @property
    def drawn(self) -> bool:
        """Whether anything was drawn so far."""
        return not all(map(torch.equal, self._states, self._begin))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The default generators stand where the last time has left them; after it, where they
        stood before. One thread at a time."""
        with _drawing:
            others = [generator.get_state() for generator in self._generators]
            try:
                self._put(self._states)
                yield
                self._states = [generator.get_state() for generator in self._generators]
            finally:
                self._put(others)

    def _put(self, states: list[Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)


def hosts_state() -> tuple[Any, ...]:
    """Of Python's and NumPy's own generators, which a user's network may draw from too."""
    numpys: Any = np.random.get_state(legacy=False)
    return random.getstate(), bytes(numpys["state"]["key"]), numpys["state"]["pos"]
