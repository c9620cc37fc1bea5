"""The tables of the README: `python -m tests.faults`, an hour or more on one core.

    python -m tests.faults                               every fault as often as README says
    python -m tests.faults --only SIGKILL --times 5      those with SIGKILL in the name, five times
    python -m tests.faults --kept faults.json            goes on from there, and keeps there

Searches on the digits are ended, starved and fed with rubbish, and each goes on to its end. Its
study is compared with that of a search that nobody touched.
"""

import argparse
import json
import random
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults import cluster_rows, driver_rows, input_rows, server_rows
from tests.faults.counting import Row


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        times: How often in the long form.
        make: Yields what became of each study, given how often and the randomness.
        input: It is about what is read, not about what is ended.
    """

    times: int
    make: Callable[[int, random.Random], Iterator[Row]]
    input: bool = False


FAULTS = {
    "driver: SIGKILL": Fault(50, driver_rows.signals("SIGKILL")),
    "driver: SIGTERM": Fault(50, driver_rows.signals("SIGTERM")),
    "driver: SIGINT": Fault(20, driver_rows.signals("SIGINT")),
    "driver: SIGINT twice": Fault(20, driver_rows.signals("SIGINT", again=True)),
    "driver: SIGKILL while a checkpoint is written": Fault(20, driver_rows.checkpoints),
    "driver: SIGKILL while the storage is written": Fault(20, driver_rows.storages),
    "driver of two Ray workers: SIGKILL": Fault(10, driver_rows.two_workers),
    "worker on Ray: SIGKILL": Fault(30, cluster_rows.killed),
    "worker on Ray: frozen": Fault(10, cluster_rows.frozen),
    "node of a Ray cluster: lost": Fault(10, cluster_rows.nodes_lost),
    "PostgreSQL, two searches on it: started again": Fault(10, server_rows.restarted),
    "newest checkpoint: truncated": Fault(100, input_rows.truncated),
    "name of a study, hostile": Fault(1000, input_rows.hostile_names, input=True),
    "config file, bad": Fault(60, input_rows.bad_configs, input=True),
}


def run(name: str, times: int, seed: int, row: Row, keep: Callable[[], None]) -> None:
    """Tries a fault until it was tried so often; adds to the row as studies end."""
    rng = random.Random(f"{seed} {name} {row.tried}")
    for part in FAULTS[name].make(times - row.tried, rng):
        row += part
        keep()


def table(rows: dict[str, Row]) -> str:
    """Both tables as Markdown."""
    lines = []
    for about_input, head in (
        (False, ("fault", "times tried", "trials lost", "told twice", "epochs repeated")),
        (True, ("input", "times tried", "executed", "outside")),
    ):
        mine = {name: row for name, row in rows.items() if FAULTS[name].input == about_input}
        if not mine:
            continue
        lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for name, row in mine.items():
            counts = (row.tried, row.executed, row.outside)
            if not about_input:
                counts = (row.tried, row.lost, row.twice, row.repeated)
            lines.append(f"| {' | '.join([name, *map(str, counts)])} |")
    return "\n".join(lines[1:])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="a part of a row's name")
    parser.add_argument("--times", type=int, help="how often each, instead of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, help="a JSON file with what was tried so far")
    given = parser.parse_args()
    rows: dict[str, Row] = {}
    if given.kept and given.kept.exists():
        rows = {name: Row(**row) for name, row in json.loads(given.kept.read_text()).items()}

    def keep() -> None:
        if given.kept:
            given.kept.write_text(json.dumps({n: asdict(row) for n, row in rows.items()}, indent=1))

    broken = 0
    for name, fault in FAULTS.items():
        if given.only and not any(part in name for part in given.only):
            continue
        row, begun = rows.setdefault(name, Row()), time.monotonic()
        times = fault.times if given.times is None else given.times
        try:
            if row.tried < times:
                run(name, times, given.seed, row, keep)
        except Exception:
            broken += 1
            traceback.print_exc()
        print(f"{name}: {row.tried} in {time.monotonic() - begun:.0f} s", flush=True)
    print(table({name: rows[name] for name in FAULTS if name in rows}))
    return int(
        broken > 0
        or any(row.lost or row.twice or row.executed or row.outside for row in rows.values())
    )


if __name__ == "__main__":
    raise SystemExit(main())
