"""A pass over images as replays of CUDA graphs, so that no step waits for the host.

At batch 128 a GPU is done with a step before Python has launched its several hundred kernels.
Captured once, a step is one launch; which images it takes is counted on the device.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainers.config import TrialConfig
from trainers.data import Images, normalisation, passes
from trainers.run import epoch_generator

CHUNK = 8192  # images of 32x32 pixels augmented at a time
DRAWS = 64  # of streams, twice round PyTorch's pool
AHEAD = 2  # replays that a run launches before they are done, where it is not the only one
WARM_UP = 3  # runs of a batch before it is captured: libraries choose their kernels in these
Body = Callable[[Tensor], None]
_one_at_a_time = threading.Lock()  # PyTorch captures one graph at a time in a process
living: "weakref.WeakSet[object]" = weakref.WeakSet()  # runs of this process that have graphs
_taken: list[int] = []  # streams of living runs, once for each that has it


def has_graphs(device: torch.device) -> bool:
    """Whether a device has streams and graphs."""
    return device.type == "cuda"


def own_stream(device: torch.device, owner: object) -> torch.cuda.Stream:
    """A stream that no living run has, if there is one.

    PyTorch hands the 32 of its pool out in turns, also those that are in use; two runs on one would
    wait for each other.

    Args:
        device: Of CUDA.
        owner: Has the stream as long as it lives. The stream itself cannot be watched: a weak
            reference to one stays when it is gone, and who looks at it dies (pytorch#183403).
    """
    for _ in range(DRAWS):
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        if stream.cuda_stream not in _taken:
            break
    _taken.append(stream.cuda_stream)
    weakref.finalize(owner, _taken.remove, stream.cuda_stream).atexit = False
    return stream


def empty_cache() -> None:
    """Gives memory that is not in use back to the device, while nothing is captured."""
    with _one_at_a_time:
        torch.cuda.empty_cache()


def chunk(side: int) -> int:
    """Images of side x side pixels that are augmented at a time: the larger, the fewer, so that
    memory stays the same."""
    return max(256, CHUNK * 32**2 // side**2)


class _Launches:
    """Replays that a pass has launched: with other runs beside it, few that are not done.

    A device holds some launches that it has not come to. While it has as many as it can, every
    launch of any thread waits for room, behind the others that wait. A replay is one launch; to
    capture a network takes thousands: beside seven runs that trained, two minutes went by before
    an eighth had its first epoch, of which the capture takes 1.3 s alone (LOG.md).
    """

    def __init__(self) -> None:
        self._waiting: deque[torch.cuda.Event] = deque()

    def one_more(self) -> None:
        """On the current stream. A run that is alone goes on at once."""
        if len(living) < 2:
            return
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        self._waiting.append(event)
        if len(self._waiting) > AHEAD:
            self._waiting.popleft().synchronize()


class Pass:
    """One way through n images in their order, batch after batch, the last one smaller if need be.

    What is done with a batch, the body, is a function: places (B,) int64 -> nothing. It reads and
    writes tensors that stay where they are, and never waits for the device. A pass doesn't keep it:
    whose method it is would live as long as the pass. On a device other than CUDA, and before
    `capture`, every batch calls it.

    Attributes:
        images: How many a run goes through: n, or less where the last batch is left out.
    """

    def __init__(
        self,
        n: int,
        batch: int,
        device: torch.device,
        least: int = 1,
    ) -> None:
        """A pass that is not captured yet.

        Args:
            n: Images. batch: Of them in a batch.
            device: Where everything lies.
            least: Images that a last batch needs to be run at all.
        """
        whole, rest = divmod(n, batch)
        counts = ((batch, whole), (rest, 1))
        self._batches = [(size, times) for size, times in counts if size >= least and times]
        self.images = sum(size * times for size, times in self._batches)
        self._begin = torch.zeros((), dtype=torch.int64, device=device)
        self._within = {size: torch.arange(size, device=device) for size, _ in self._batches}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @property
    def captured(self) -> bool:
        """Whether a run is replays."""
        return bool(self._graphs)

    def _batch(self, body: Body, size: int) -> None:
        body(self._begin + self._within[size])
        self._begin += size

    def capture(self, body: Body, stream: torch.cuda.Stream, pool: Any) -> None:
        """Runs the body a few times, which changes what it changes, and captures it.

        Args:
            body: What the replays do.
            stream: Also that of every run.
            pool: Of `torch.cuda.graph_pool_handle`; graphs that never run at once may share one.

        Raises:
            RuntimeError: The body does what a graph cannot hold.
        """
        with _one_at_a_time:
            graphs = {}
            for size, _ in self._batches:
                for _ in range(WARM_UP):
                    self._begin.zero_()
                    self._batch(body, size)
                self._begin.zero_()
                graph = torch.cuda.CUDAGraph()
                # thread_local: other threads may go on with runs of their own
                with torch.cuda.graph(
                    graph, pool=pool, stream=stream, capture_error_mode="thread_local"
                ):
                    self._batch(body, size)
                graphs[size] = graph
            self._graphs = graphs  # all or none

    def run(self, body: Body) -> None:
        """Goes through the images once, on the current stream.

        Args:
            body: Called where it isn't captured.
        """
        self._begin.zero_()
        launches = _Launches()
        for size, times in self._batches:
            graph = self._graphs.get(size)
            for _ in range(times):
                if graph is None:
                    self._batch(body, size)
                else:
                    graph.replay()
                    launches.one_more()


class Shown:
    """The images of one pass in its order, where a graph reads them.

    Attributes:
        pixels: (n, side, side, C) uint8: channels last, as convolutions want them.
        labels: (n,) int64.
    """

    def __init__(self, images: Images) -> None:
        n, side, channels, device = len(images), images.side, len(images.mean), images.labels.device
        self.pixels = torch.zeros(n, side, side, channels, dtype=torch.uint8, device=device)
        # zeros, since the warm-up trains on what is here
        self.labels = torch.zeros(n, dtype=torch.int64, device=device)
        self._scale, self._offset = torch.empty(2, channels, device=device)

    def show(self, images: Images, config: TrialConfig | None = None, epoch: int = 0) -> None:
        """Fills it, for an epoch of training, or without a config with the images as they are."""
        self._scale.copy_(normalisation(images)[0])
        self._offset.copy_(normalisation(images)[1])
        begin = 0
        for pixels, labels in passes(
            images,
            chunk(images.side),
            augmentation="none" if config is None else config.augmentation,
            shuffle=config is not None,
            generator=None if config is None else epoch_generator(config, epoch),
        ):
            part = slice(begin, begin + len(labels))
            self.pixels[part] = pixels.permute(0, 2, 3, 1)
            self.labels[part] = labels
            begin += len(labels)

    def batch(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, side, side) float32, normalised, and (B,) labels, of places (B,)."""
        pixels = self.pixels.index_select(0, places).float()
        normalised = torch.addcmul(self._offset, pixels, self._scale)
        return normalised.permute(0, 3, 1, 2), self.labels.index_select(0, places)
