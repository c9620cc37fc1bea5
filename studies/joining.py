"""A Ray to run on: one that is there, the one at an address, or one of our own; and its nodes.

With `studies.cluster` the only file that imports Ray.
"""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

# Read by Ray at its import. Ctrl-C has to reach us, who give the trials back, and not Tune.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints at verbose=0 too
# Ray runs its workers at the lowest priority but four; beside any other load they would starve.
os.environ.setdefault("RAY_worker_niceness", "0")
# Seconds after which a worker that hangs, and so cannot be asked to end, is killed.
os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "20")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from studies import machine, nodes
from studies.plan import StudyPlan
from studies.record import StudyRecord
from trainers.catalog import InputError, shortened

NODE_ANSWERS = 120.0  # seconds; its first Python process may load from a slow disk
NODE_MEASURES = 300.0  # seconds
_joined: list[str] = []  # the cluster that a plan has connected this process to, if any


def _connect(address: str | None, own: dict[str, Any]) -> None:
    """Raises InputError where no Ray answers, or none can be started."""
    given = own if address is None else {"address": address}
    where, hint = address or "this machine", ""
    if address is not None and address != "auto" and not address.rpartition(":")[2].isdigit():
        raise InputError(f"ray_address needs to be host:port, as 10.0.0.5:6379, got {address!r}")
    try:
        if address is not None:
            nodes.knock(address)
            if "RAY_AUTH_MODE" not in os.environ:
                hint = "; if it asks for a token, set RAY_AUTH_MODE=token"
        with _silent(address is not None):
            ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster can be reached at {where}: {shortened(error, 200)}{hint}"
        ) from None


@contextlib.contextmanager
def _silent(deep: bool) -> Iterator[None]:
    """Ray prints on both, whatever it is told, and deep: what is not Python's too."""
    with contextlib.ExitStack() as stack:
        if deep:
            null = stack.enter_context(open(os.devnull, "w"))
            for number in (1, 2):
                kept = os.dup(number)
                stack.callback(os.close, kept)
                stack.callback(os.dup2, kept, number)
                os.dup2(null.fileno(), number)
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        yield


def _leave_another(address: str | None) -> None:
    """Ends a connection of ours to another cluster than the one at the address."""
    if _joined and _joined[0] != address:
        _joined.clear()
        ray.shutdown()


@contextlib.contextmanager
def joined(plan: StudyPlan, address: str | None) -> Iterator[bool]:
    """A Ray to run a plan on, with room for one of its trials. Yields whether it outlives us.

    Raises:
        InputError: No Ray cluster answers at the address, or it has no room for one trial.
    """
    _leave_another(address)
    there = ray.is_initialized()
    if not there:
        # A user who asks for more workers than cores gets them.
        cpus = max(machine.cores(), plan.workers * plan.threads)
        own = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        _connect(address, own)
    try:
        _check_room(plan)
        yield there or address is not None
    finally:
        if not there:
            ray.shutdown()


def _check_room(plan: StudyPlan) -> None:
    """That one of the nodes has what a trial needs: else Tune would wait for it forever."""
    needs = {"CPU": float(plan.threads), "GPU": plan.gpus_per_trial}
    needs = {kind: number for kind, number in needs.items() if number}

    def named(room: dict[str, float]) -> str:
        return " and ".join(f"{number:g} {kind}" for kind, number in room.items())

    rooms = [{kind: _has(node, kind) for kind in needs} for node in _alive()]
    if not any(all(room[kind] >= needs[kind] for kind in needs) for room in rooms):
        there = ", ".join(sorted({named(room) for room in rooms}))
        raise InputError(
            f"a trial needs {named(needs)} on one node, those of the Ray cluster have {there}: "
            "lower --threads or --gpus-per-trial"
        )


class Nodes(machine.Machine):
    """The nodes of a Ray cluster, one of which answers what a plan needs to know.

    The process is connected to the cluster from then on.

    Args:
        address: Of the cluster.

    Raises:
        InputError: None answers there.
    """

    spread = True

    def __init__(self, address: str) -> None:
        _leave_another(address)
        if not ray.is_initialized():
            _connect(address, {})
            _joined.append(address)

    @property
    def cores(self) -> int:
        """CPUs of all nodes."""
        return int(sum(_has(node, "CPU") for node in _alive()))

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(_has(node, "GPU") for node in _alive()))

    @property
    def alone(self) -> int:
        """CPUs of the node that is asked."""
        return int(_has(_one("CPU"), "CPU"))

    def beside_gpu(self, share: float, workers: int) -> int:
        """CPUs that a trial can have beside its share of a GPU on every node that has GPUs."""
        having = [node for node in _alive() if _has(node, "GPU")]
        each = [share * _has(node, "CPU") / _has(node, "GPU") for node in having]
        return max(1, int(min(each, default=1.0)))

    def ask(self, question: Callable[..., Any], *given: Any, device: str = "cpu") -> Any:
        """What a function of a module says on a node that trains, beside whatever runs there.

        Raises:
            InputError: No node can answer, or it fails there.
        """
        # A task that asks for no GPU sees all of its node's, also those that trials have.
        task = ray.remote(num_cpus=0, max_retries=0)(question).options(
            scheduling_strategy=_on(_one("GPU" if device == "cuda" else "CPU"))
        )
        answer = task.remote(*given)
        try:
            return ray.get(answer, timeout=NODE_MEASURES)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(answer, force=True)
            raise InputError(
                f"a node of the Ray cluster did not measure within {NODE_MEASURES:g} s: try again"
            ) from None
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, InputError):
                raise InputError(str(cause)) from None
            raise InputError(
                f"a node of the Ray cluster cannot train: {shortened(cause, 200)}"
            ) from None


def _has(node: dict[str, Any], kind: str) -> float:
    return float(node["Resources"].get(kind, 0.0))


def _one(kind: str) -> dict[str, Any]:
    """The first node that has a CPU, or a GPU."""
    node = next((node for node in _alive() if _has(node, kind)), None)
    if node is None:
        raise InputError(f"the Ray cluster has no {kind}")
    return node


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _on(node: dict[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def look_at_nodes(record: StudyRecord) -> None:
    """That every other node sees the checkpoints and the data. Raises InputError."""
    here = ray.get_runtime_context().get_node_id()
    others = [n for n in _alive() if n["NodeID"] != here and n["Resources"].get("CPU")]
    plan = record.plan
    with nodes.marked(record.folder) as mark:
        words = (str(mark), plan.base.model_dump_json(), plan.data_root, plan.digests)
        look = ray.remote(num_cpus=0)(nodes.missing)
        asked = {
            look.options(scheduling_strategy=_on(node)).remote(*words): node for node in others
        }
        for answer, node in asked.items():
            name = node["NodeManagerAddress"]
            try:
                lacks = ray.get(answer, timeout=NODE_ANSWERS)
            except Exception as error:  # gone, or automate is not installed there
                if _is_gone(node["NodeID"], error):
                    continue
                text = " ".join(str(error).split())
                lacks = f"cannot run a trial: {type(error).__name__}: {text[-200:]}"
            if lacks is not None:
                raise InputError(f"node {name} of the Ray cluster {lacks}")


def _is_gone(node_id: str, error: Exception) -> bool:
    """Whether a node that did not answer is no part of the cluster any more."""
    if isinstance(error, ray.exceptions.TaskUnschedulableError):  # Ray's list still has it
        return True
    return node_id not in [node["NodeID"] for node in _alive()]
