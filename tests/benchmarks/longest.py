"""Points of a file trained at once on one device, with as many epochs as fit into a time.

python -m tests.benchmarks.record points table2,recipe 11 POINTS.json --dataset cifar100
python -m tests.benchmarks.longest POINTS.json RUNS.jsonl --seconds 500 --purpose reproduce \\
    --data-root FOLDER --device cuda
python -m tests.benchmarks.methods RUNS.jsonl

Runs begin one after another; then all train together until an epoch of all is timed; with as many
epochs as fit, but no more than their points ask for, they train from the start. Each epoch is
written to RUNS.epochs.jsonl as it ends, so that what is cut is not lost.
"""

import argparse
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.record import Job, Purpose, add_running, data_of, run
from trainers.config import TrialConfig
from trainers.loop import train
from trainers.reports import EpochReport

TIMED = 3  # epochs of the slowest run, while all others train too
SAFETY = 1.05  # an epoch may take that much longer than those that were timed
Hear = Callable[[str, Job, EpochReport], None]  # what for, whose, what came out


def begun(
    jobs: list[Job], root: str | None, device: str, purpose: Purpose, hear: Hear
) -> list[tuple[Job, Iterator[EpochReport]]]:
    """Runs of the jobs after two epochs each, one after another, without those that fail."""
    runs = []
    for job in jobs:
        try:
            config = TrialConfig(**job[2])
            data = data_of(config, root, device, purpose)
            reports = train(config, data, device=device, each_epoch=True)
            for _ in range(2):  # a GPU captures scoring the second time
                hear("begin", job, next(reports))
            runs.append((job, reports))
        except Exception:  # one that cannot be run is not to cost the others their time
            traceback.print_exc()
    return runs


def epoch_seconds(runs: list[tuple[Job, Iterator[EpochReport]]], hear: Hear) -> float:
    """Seconds that an epoch of the slowest run takes while all train."""
    counts, ends, training = [0] * len(runs), [0.0] * len(runs), set(range(len(runs)))
    begin = time.perf_counter()

    def go(place: int) -> None:
        try:
            timed(place)
        except Exception:  # it will fail again where it is run in full
            traceback.print_exc()
        finally:
            training.discard(place)

    def timed(place: int) -> None:
        job, reports = runs[place]
        for report in reports:
            hear("time", job, report)
            counts[place] += 1
            ends[place] = time.perf_counter()
            if all(counts[other] >= TIMED for other in training):  # the others go on until then
                return

    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(go, range(len(runs))))
    found = [(end - begin) / count for end, count in zip(ends, counts, strict=True) if count]
    return max(found, default=0.0)


def main(words: list[str] | None = None) -> int:
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="in all")
    parser.add_argument("--only", nargs="+", help="arms of an experiment")
    add_running(parser)
    given = parser.parse_args(words)
    where = given.data_root, given.device, given.purpose
    jobs: list[Job] = [
        (number, point["params"], point["config"], 0)
        for number, point in enumerate(json.loads(given.points.read_text()))
        if given.only is None or point["params"].get("arm") in given.only
    ]
    writing = threading.Lock()
    with given.file.open("a") as lines, given.file.with_suffix(".epochs.jsonl").open("a") as epochs:

        def hear(what: str, job: Job, report: EpochReport) -> None:
            found = {"for": what, "params": job[1], "epoch": report.epoch, "loss": report.loss}
            found |= {"at": round(time.perf_counter() - begin, 2), "accuracy": report.accuracies}
            with writing:
                print(json.dumps(found), file=epochs, flush=True)

        runs = begun(jobs, *where, hear)
        if not runs:
            raise SystemExit("none of the points can be run")
        each = epoch_seconds(runs, hear)
        for _, reports in runs:
            reports.close()  # type: ignore[attr-defined]  # its graphs are for the next
        left = given.seconds - (time.perf_counter() - begin)
        most = max(job[2]["epochs"] for job, _ in runs)
        number = min(most, max(1, int(left / (each * SAFETY)))) if each else most
        print(f"{len(runs)} runs: {each:.2f} s an epoch of all, {left:.0f} s left: {number} epochs")

        def whole(job: Job) -> None:
            fields = {**job[2], "epochs": min(number, job[2]["epochs"])}
            planned: Job = (job[0], job[1], fields, job[3])
            line = run(planned, *where, lambda report: hear("run", job, report))
            with writing:
                print(json.dumps(line), file=lines, flush=True)

        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(whole, [job for job, _ in runs]))
    return number


if __name__ == "__main__":
    main()
