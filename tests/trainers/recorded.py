"""CUDA graphs where no GPU is: operations recorded while a graph is captured, and run again.

What holds of a graph on a device holds here, so that a run made of graphs can be tested:

- A capture computes nothing: whatever it has written is put back when it ends.
- A replay computes with the same memory and with the numbers that Python had at the capture. What
  was made on the way lies in the graph's own memory, and is rubbish once the replay is over.
- Whoever asks the host for a number, brings one from it, or draws while a graph is captured gets
  the error that CUDA would raise.

Streams are not parallel: all that is launched is done at once.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from trainers import branches, captured
from trainers.fused import FusedNorm

RUBBISH = 0xFF  # every byte: NaN in floats, -1 in integers
ASKS = (
    "_local_scalar_dense", "nonzero", "equal", "masked_select", "unique", "repeat_interleave",
    "bincount", "allclose", "is_nonzero",
)  # fmt: skip
BRINGS = ("lift_fresh", "scalar_tensor")
DRAWS = (
    "rand", "bernoulli", "normal_", "uniform_", "multinomial", "native_dropout", "exponential_",
    "geometric_", "cauchy_", "log_normal_", "rrelu",
)  # fmt: skip
TO_HOST = (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.item, torch.allclose, Tensor.allclose)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)  # type: ignore[call-overload]


class Graph:
    """In place of `torch.cuda.CUDAGraph`.

    Attributes:
        calls: Operations that a replay runs.
        own: Memory of what they make.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Sequence[Any], dict[str, Any], list[Tensor], list[int]]] = []
        self.own: list[torch.UntypedStorage] = []

    def replay(self) -> None:
        """All operations once more, at the same places in memory."""
        with torch._C._AutoDispatchBelowAutograd():  # type: ignore[attr-defined]
            for function, args, kwargs, outputs, fresh in self.calls:
                found = _tensors(function(*args, **kwargs))
                for place in fresh:
                    outputs[place].copy_(found[place])
        self.forget()

    def forget(self) -> None:
        """What lies in the graph's own memory is gone."""
        for storage in self.own:
            _bytes(storage).fill_(RUBBISH)


def _not_permitted(name: str) -> RuntimeError:
    return RuntimeError(f"operation not permitted when stream is capturing: {name}")


class _OnDevice(TorchFunctionMode):
    """What is made of nothing names the device, else it is the host's."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in TO_HOST:
            raise _not_permitted(function.__name__)
        result = function(*args, **kwargs)
        alone = isinstance(result, Tensor) and not _tensors((args, kwargs))
        if alone and kwargs.get("device") is None:
            raise _not_permitted(function.__name__)
        return result


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph
        self.own: set[int] = set()
        self.before: dict[int, tuple[torch.UntypedStorage, Tensor]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.name().split("::")[1].split(".")[0]
        indices = _tensors(args[1]) if name.strip("_") in ("index", "index_put") else []
        masked = any(one.dtype == torch.bool for one in indices)
        if masked or name.startswith((*ASKS, *BRINGS, *DRAWS)):
            raise _not_permitted(name)
        return self.call(function, args, kwargs, view=function.is_view)

    def call(
        self, function: Any, args: Sequence[Any], kwargs: dict[str, Any], view: bool = False
    ) -> Any:
        """Calls and records it."""
        given = [tensor.untyped_storage() for tensor in _tensors((args, kwargs))]
        for storage in given:
            place = storage.data_ptr()
            if place not in self.own and place not in self.before:
                self.before[place] = storage, _bytes(storage).clone()
        result = function(*args, **kwargs)
        outputs, fresh = _tensors(result), []
        here = {storage.data_ptr() for storage in given}
        for number, output in enumerate(outputs):
            storage = output.untyped_storage()
            if storage.nbytes() and storage.data_ptr() not in here:
                fresh.append(number)
                self.own.add(storage.data_ptr())
                self.graph.own.append(storage)
        if fresh or not view:
            self.graph.calls.append((function, args, kwargs, outputs, fresh))
        return result

    def undo(self) -> None:
        """Memory from before the capture is as it was."""
        for storage, content in self.before.values():
            _bytes(storage).copy_(content)
        self.graph.forget()


_capturing: list[_Recorder] = []


@contextmanager
def _capture(graph: Graph, **_: Any) -> Iterator[None]:
    recorder = _Recorder(graph)
    _capturing.append(recorder)
    try:
        with recorder, _OnDevice():
            yield
    finally:
        _capturing.remove(recorder)
        recorder.undo()


def _launched(kernel: Any) -> Any:
    """A kernel of ours, which PyTorch's dispatcher does not see."""

    def launch(grid: Any, block: Any, args: list[Any]) -> None:
        if _capturing:
            with _disable_current_modes():  # type: ignore[no-untyped-call]
                _capturing[-1].call(kernel, (grid, block, args), {})
        else:
            kernel(grid, block, args)

    return launch


class Stream:
    """In place of `torch.cuda.Stream`."""

    def __init__(self, *_: Any) -> None:
        self.cuda_stream = id(self)

    def wait_stream(self, other: object) -> None:
        """Nothing is left to wait for."""

    def synchronize(self) -> None:
        """Likewise."""


class Event:
    """In place of `torch.cuda.Event`."""

    def __init__(self, blocking: bool = False) -> None:
        pass

    def record(self) -> None:
        """Whatever was launched is done."""

    def synchronize(self) -> None:
        """Likewise."""


def use(monkeypatch: pytest.MonkeyPatch, kernels: dict[str, Any] | None = None) -> None:
    """From now on a run on the CPU takes it for a GPU.

    Args:
        monkeypatch: Ends it.
        kernels: Of `emulated`; without them the sums of batch norm are PyTorch's.
    """
    for name, stand_in in {
        "CUDAGraph": Graph,
        "graph": _capture,
        "Stream": Stream,
        "Event": Event,
        "stream": lambda stream: nullcontext(stream),
        "current_stream": lambda device=None: Stream(),
        "graph_pool_handle": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for room in (captured, branches):
        monkeypatch.setattr(room, "has_graphs", lambda device: True)
    monkeypatch.setattr(branches, "_branched", weakref.WeakSet())
    made = {name: _launched(kernel) for name, kernel in (kernels or {}).items()}
    monkeypatch.setattr(captured, "checked", lambda device: made)
    monkeypatch.setattr(FusedNorm, "fast", lambda norm, _: bool(norm.made))
