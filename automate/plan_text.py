"""A resolved plan in words, before a search begins."""

from dataclasses import asdict
from typing import Any

from automate.printing import duration, size
from search_spaces import load_space
from studies.limits import Limits, Shared
from studies.plan import FRONT_FLOPS, OBJECTIVES, SAMPLERS, StudyPlan, is_front, objective_key
from studies.search import Estimate
from studies.unread import unread_text
from studies.verdict import count_text, number_text, objective_name, tolerance_text
from trainers.catalog import is_path
from trainers.config import TrialConfig
from trainers.schemes import scheme_named


def plan_pairs(
    plan: StudyPlan,
    title: str,
    storage: str,
    estimate: Estimate | None,
    so_far: str | None,
    limits: Limits | None = None,
    parts: Shared | None = None,
) -> dict[str, str]:
    """Names and values, in the order in which they are read.

    Args:
        plan: Of the search.
        title: What the space says of itself.
        storage: Where the study lies, without a password.
        estimate: Of the trials that are left; None if none is.
        so_far: States of a study that goes on; None of a new one.
        limits: What this call may spend.
        parts: How the epochs are shared with a confirmation, if they are.
    """
    base = plan.base
    trials = count_text(plan.trials, "trial")
    if parts is not None and parts.most is None and plan.trials == parts.trials:
        every = parts.total // base.epochs
        trials = f"{plan.trials} of the {every} trials (the rest pays for the confirmation)"
    pairs = {
        "study": plan.study,
        "stored in": storage,
        "space": f"{plan.space}: {title}",
        "search": f"{trials}, {plan.sampler} (seed {plan.seed}): "
        f"{SAMPLERS[plan.sampler].replace(' (default)', '')}",
        "objective": _objective(plan),
        "data": _data(plan, estimate),
        "network": f"{base.backbone}" + (f", width {base.width:g}" if base.width != 1 else ""),
        "training": training_text(base),
        "base": _base(base),
        "early stopping": _stopping(plan),
        "runs on": machine_text(plan),
    }
    if so_far is None and (nothing := unread_text(load_space(plan.space), base)):
        pairs["no use"] = nothing
    if parts is not None:
        pairs["confirmation"] = (
            f"{100 * parts.share:g} % of the {parts.total:,} epochs: then the best {parts.top} and "
            f"the default on up to {parts.seeds} fresh seeds and hold-outs, at most "
            f"{count_text(parts.epochs, 'epoch')}; the search has the rest"
        )
    if so_far is not None:
        pairs["goes on from"] = so_far
    if estimate is not None:
        pairs["at most"] = (
            f"{count_text(estimate.epochs, 'epoch')}, {duration(estimate.seconds)} "
            f"({estimate.images_per_second:,.0f} images/s a worker), "
            f"{size(estimate.disk)} of checkpoints at a time"
        )
    ends = []
    if limits is not None and limits.seconds is not None:
        ends.append(f"after {duration(limits.seconds)}, at the end of the epochs that run then")
    if limits is not None and limits.epochs is not None:
        ends.append(f"before epoch {limits.epochs + 1:,} of the study, earlier calls counted")
    if ends:
        pairs["ends"] = f"{' or '.join(ends)}; what is cut waits with its checkpoint"
    return pairs


def _objective(plan: StudyPlan) -> str:
    known = objective_key(plan.objective)
    name, text = plan.objective, OBJECTIVES[known].removesuffix(" (default)")
    if known != plan.objective:  # of one exit or one budget
        text = objective_name(plan.objective)
    if is_front(plan.objective):
        also = ", and the FLOPs of the last one" if plan.objective == FRONT_FLOPS else ""
        name, text = "front", f"the accuracy of each exit by itself{also}"
        text += f"; an order, where one is needed, by {objective_name(plan.objective)}"
    if plan.budgets is not None:
        text += f", weighted {' '.join(f'{weight:g}' for weight in plan.budgets)}"
    return f"{name}: {text}"


def _data(plan: StudyPlan, estimate: Estimate | None) -> str:
    base = plan.base
    made = "" if base.resize is None else "made "
    size = f"{base.image_size}x{base.image_size}"
    text = f"{base.dataset}: {base.classes} classes, {made}{size} pixels"
    if base.stored_size != base.image_size:
        text += f", cut from {base.stored_size}x{base.stored_size}"
    if estimate is None:
        if base.limit_train is not None:
            text += f", {base.limit_train:,} training images"
        held = "four fifths" if base.dataset == "digits" else f"{100 * base.validation:g} %"
        text += f"; scored on {held} of the training images"
    else:
        text += f"; trains on {estimate.trained:,} images, scored on {estimate.scored:,} others "
        text += f"(one is {number_text(100 / estimate.scored)} points)"
    if estimate is None or estimate.has_test:
        text += ", the test images stay unread"
    else:
        text += ", no test/ is there yet, which confirm and train need"
    if estimate is not None and estimate.passed_over:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in estimate.passed_over.items())
        text += f"; no images by their names, passed over: {kinds}"
    return text + (f"; in {plan.data_root}" if _is_placed(plan) else "")


def network_text(plan: StudyPlan) -> str:
    """The network, its width, the data set and where that lies, in a phrase."""
    text = f"{plan.base.backbone}, width {plan.base.width:g}, on {plan.base.dataset}"
    return text + (f" in {plan.data_root}" if _is_placed(plan) else "")


def training_text(base: TrialConfig) -> str:
    """How long and by what recipe a network is trained, in a phrase."""
    return (
        f"{count_text(base.epochs, 'epoch')}, batches of {base.batch_size} images, lr {base.lr:g} "
        f"({base.schedule}), augmentation {base.augmentation}"
    )


def _is_placed(plan: StudyPlan) -> bool:
    """Whether the data set lies in the plan's folder: one given as a folder names itself."""
    return plan.data_root is not None and not is_path(plan.base.dataset)


def _base(base: TrialConfig) -> str:
    """The distillation that the space starts from."""
    scheme = scheme_named(base.scheme)
    parts = [f"scheme {base.scheme}"]
    if is_path(base.scheme):
        parts[0] += f" ({scheme.title}; `own` where schemes are compared)"
    if scheme.alpha:
        parts.append(f"alpha {' '.join(f'{value:g}' for value in base.alpha)}")
    if scheme.teaches:
        if scheme.anneals:
            parts.append("T from 1, annealed")
        else:
            phases = base.temperatures or (base.temperature,)
            parts.append(f"T {' then '.join(f'{value:g}' for value in phases)}")
        parts.append(f"kd_weight {base.kd_weight:g}")
        if base.t_squared:
            parts.append("times T squared")
        if base.ramp_up:
            parts.append(f"growing over {count_text(base.ramp_up, 'epoch')}")
        if base.attached:
            parts.append("teachers attached")
    return ", ".join(parts)


def _stopping(plan: StudyPlan) -> str:
    if not plan.early_stopping:
        return "none: every trial runs its full length"
    rungs = plan.judged_after
    by = f" (set by {plan.calibrated})" if plan.calibrated else ""
    if not rungs:
        return f"none: the grace period is the full length{by}"
    listed = ", ".join(str(epoch) for epoch in rungs)
    passes = f"the best 1 in {plan.eta} goes on"
    if is_front(plan.objective):
        passes = f"what no other beats as a whole and the best 1 in {plan.eta} at any exit go on"
    text = f"after epoch {listed}: {passes} (starting points always do)"
    if plan.tolerance:
        text += f", and what is less than {tolerance_text(plan)} below these"
    text += by
    if plan.run_on:
        text += f"; {100 * plan.run_on:g} % of the stopped run on outside the search"
    return text


def machine_text(plan: StudyPlan) -> str:
    """The device, what shares it, threads and the way that a step takes, in a phrase."""
    workers = "1 worker" if plan.workers == 1 else f"{plan.workers} workers on Ray"
    if plan.on_one_gpu:
        workers = f"{plan.workers} trials at a time on one GPU"
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    kernels = "fast kernels, " if plan.device == "cpu" else ""
    precision = f"{kernels}{plan.base.precision}{_precision(plan)}"
    text = f"{plan.device}, {workers}, {threads} a trial, {precision}"
    return text + (f", {plan.gpus_per_trial:g} GPU a trial" if plan.gpus_per_trial else "")


def _precision(plan: StudyPlan) -> str:
    """Why it is this precision, where that was measured."""
    fp32, bf16 = ((plan.speeds or {}).get(name) for name in ("fp32", "bf16"))
    if fp32 is None or bf16 is None:
        return ""
    if not bf16:
        return " (bf16 does not compute the same here)"
    if plan.base.precision == "bf16":
        return f" ({bf16 / fp32:.1f}x the images/s of fp32, measured)"
    return f" (bf16 reaches {bf16 / fp32:.1f}x its images/s, measured)"


def plan_json(
    plan: StudyPlan,
    storage: str,
    estimate: Estimate | None,
    so_far: str | None,
    parts: Shared | None = None,
) -> dict[str, Any]:
    """The same for `--json`."""
    return {
        "plan": plan.model_dump(mode="json"),
        "storage": storage,
        "goes_on_from": so_far,
        "estimate": None if estimate is None else asdict(estimate),
        **({} if parts is None else {"confirmation": asdict(parts)}),
    }
