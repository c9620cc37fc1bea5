"""Processes side by side: images per second of all together, with their input, and peak memory.

Each worker is a process of its own that trains on random images; the teams take turns.
"""

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from trainers import SPINS, memory
from trainers.bench import NETS
from trainers.config import TrialConfig
from trainers.data import Images, batches, random_images
from trainers.plain import plain_steps
from trainers.rounds import Foreign, Row, compared, kept
from trainers.run import Run
from trainers.speed import precisions, preferred

IMAGES = 2048  # random ones of each worker


@dataclass(frozen=True)
class Team:
    """Processes that train the same config, each by itself.

    Attributes:
        name: For tables.
        processes: How many.
        threads: CPU threads of each.
        precision: fp32 or bf16; of the plain trainer, fp32.
        plain: Whether the plain trainer, with its DataLoader's own processes.
    """

    name: str
    processes: int
    threads: int
    precision: str = "fp32"
    plain: bool = False


def steps(config: TrialConfig, images: Images) -> Iterator[int]:
    """Trains for ever as a trial does, input and all; the number of images of each step."""
    run = Run(config)
    run.network.train()
    for _ in itertools.count():
        given = batches(images, config.batch_size, augmentation=config.augmentation, shuffle=True)
        for pixels, labels in given:
            if len(labels) < config.batch_size:
                continue
            run.step(pixels, labels)
            yield len(labels)


def cpu_seconds() -> float:
    """CPU time of this process and of those that it has started and that still run."""
    used = time.process_time()
    for child in multiprocessing.active_children():
        with suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
            used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def work(pipe: Connection, fields: dict[str, Any], threads: int, plain: bool) -> None:
    """A worker: a number of seconds comes, (images, seconds, CPU seconds, peak bytes) go back."""
    torch.set_num_threads(threads)
    config = TrialConfig(**fields)
    images = random_images(config, max(IMAGES, 2 * config.batch_size))
    going = plain_steps(config, images) if plain else steps(config, images)
    next(going), next(going)
    pipe.send("ready")
    while (seconds := pipe.recv()) is not None:
        begin, cpu, done = time.perf_counter(), cpu_seconds(), 0
        while time.perf_counter() - begin < seconds:
            done += next(going)
        passed = time.perf_counter() - begin
        pipe.send((done, passed, cpu_seconds() - cpu, memory.peak()))
    pipe.close()


class _Working:
    """A team whose processes have started."""

    def __init__(self, team: Team, fields: dict[str, Any], stack: ExitStack) -> None:
        context = multiprocessing.get_context("spawn")
        self.peak = 0
        self._pipes: list[Connection] = []
        fields = {**fields, "precision": team.precision}
        for _ in range(team.processes):
            here, there = context.Pipe()
            # No daemon: the plain trainer's DataLoader has children of its own.
            process = context.Process(target=work, args=(there, fields, team.threads, team.plain))
            with _as_installed(team.plain):
                process.start()
            there.close()
            stack.callback(_end, process, here)
            self._pipes.append(here)

    def wait(self) -> None:
        for pipe in self._pipes:
            pipe.recv()

    def turn(self, seconds: float) -> tuple[float, float, float | None]:
        """Images per second of all its processes; per second of CPU that they used; the share of
        the machine that others had."""
        foreign = Foreign()
        for pipe in self._pipes:
            pipe.send(seconds)
        told = [pipe.recv() for pipe in self._pipes]
        used = sum(cpu for _, _, cpu, _ in told)
        self.peak = max(self.peak, *(peak for *_, peak in told))
        speed = float(sum(images / passed for images, passed, _, _ in told))
        return speed, sum(images for images, *_ in told) / max(used, 1e-9), foreign.share(used)


@contextmanager
def _as_installed(plain: bool) -> Iterator[None]:
    """The plain trainer's threads wait for each other as OpenMP has it where nobody sets it."""
    before = os.environ.get(SPINS)
    if plain and before is not None:
        os.environ[SPINS] = "300000"
    try:
        yield
    finally:
        if before is not None:
            os.environ[SPINS] = before


def _end(process: Any, pipe: Connection) -> None:
    with suppress(OSError):  # it has died
        pipe.send(None)
    process.join(10)
    if process.is_alive():
        process.terminate()
        process.join()


def team_table(
    net: str, teams: list[Team], *, rounds: int = 4, seconds: float = 2.0, **fields: Any
) -> list[Row]:
    """Images per second of each team with the whole machine to itself, and memory of a process.

    Where others use the machine too, images per second of CPU time compare teams whose processes
    have one thread each (threads that wait for each other spin); on an idle machine such teams
    reach that times the cores.

    Args:
        net: Of `NETS`.
        teams: Ratios are against the first.
        rounds, seconds: Turns of each team, and their length, interleaved.
        **fields: Fields of `TrialConfig` that differ from the net's.
    """
    with ExitStack() as stack:
        working = [_Working(team, {**NETS[net], **fields}, stack) for team in teams]
        for one in working:
            one.wait()
        values: dict[str, list[float]] = {team.name: [] for team in teams}
        per_cpu: dict[str, list[float]] = {team.name: [] for team in teams}
        shares: list[float | None] = []
        for _ in range(rounds):
            seen = []
            for team, one in zip(teams, working, strict=True):
                speed, of_cpu, share = one.turn(seconds)
                values[team.name].append(speed)
                per_cpu[team.name].append(of_cpu)
                seen.append(share)
            shares.append(max((s for s in seen if s is not None), default=None))
        good = kept(shares)
        values = {name: [found[i] for i in good] for name, found in values.items()}
        rows = compared(net, values, "images/s", dropped=rounds - len(good))
        rows += compared(f"{net}, CPU time", per_cpu, "images/CPU s")
        first = working[0].peak
        rows += [
            Row(f"{net} memory", team.name, one.peak / 1e6, "MB a process", first / one.peak)
            for team, one in zip(teams, working, strict=True)
        ]
    return rows


def best_precision(net: str) -> str:
    """The faster one here, measured."""
    speeds = precisions(TrialConfig(**NETS[net]))
    return preferred(speeds)


def machine_table(net: str, cores: int, rounds: int, seconds: float = 2.0) -> list[Row]:
    """The plain trainer and ours, as one process and as a process a core, in the best precision.

    Args:
        net: Of `trainers.bench.NETS`.
        cores: That may be used.
        rounds: In which the teams take turns.
        seconds: Of each turn.
    """
    best = best_precision(net)
    teams = [
        Team(f"plain, 1 x {cores}", 1, cores, plain=True),
        Team(f"plain, {cores} x 1", cores, 1, plain=True),
        Team(f"{best}, 1 x {cores}", 1, cores, best),
        Team(f"{best}, {cores} x 1", cores, 1, best),
    ]
    return team_table(net, teams, rounds=rounds, seconds=seconds)
