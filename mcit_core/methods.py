"""Presets: a method's name stands for a point of the product tuner x projection; any of it can be overridden."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mcit_core.config import Experiment, unflatten


@dataclass(frozen=True)
class Preset:
    settings: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    paper: str = ""


PRESETS: dict[str, Preset] = {
    "fwd_prompt": Preset(
        {"tuner": "prompt_pool", "projection.mode": "both"},
        "prompt pool chosen by image and instruction; updates kept in the pre-trained and residual space",
        "Zheng et al., arXiv 2401.09181; details reconstructed",
    ),
    "sequential": Preset(
        {"tuner": "prompt_pool", "projection.mode": "none"}, "the same prompt pool, nothing protected: the lower bound"
    ),
    "direct": Preset(
        {"tuner": "prompt_pool", "projection.mode": "none", "protocol": "direct"},
        "each task trained alone from the pre-trained model: the upper bound",
    ),
    "zero_shot": Preset({"protocol": "zero_shot"}, "the untouched model"),
}
#: methods that a sweep's `references` may name
REFERENCES = ("zero_shot", "direct", "sequential")
#: what protects earlier tasks inside a tuner; a reference protects nothing
PROTECTION = ("reuse", "reuse_penalty", "claim_share")


def build_experiment(
    benchmark: str,
    model: str,
    method: str,
    order: tuple[str, ...],
    seed: int = 0,
    settings: dict[str, Any] | None = None,
) -> Experiment:
    """The experiment of a preset with dotted `settings` on top. Raises KeyError for an unknown method and pydantic's
    ValidationError for settings that make no sense."""
    dotted = {**PRESETS[method].settings, **(settings or {})}
    return Experiment.model_validate(
        {"benchmark": benchmark, "model": model, "method": method, "order": order, "seed": seed, **unflatten(dotted)}
    )


def reference_experiment(experiment: Experiment, reference: str, default_order: tuple[str, ...]) -> Experiment:
    """The reference that `experiment` is compared with: same tuner, budget and seed, nothing projected
    and no prompt kept from later stages.

    `direct` and `zero_shot` do not depend on the order, so they run in the default one.
    """
    plain = experiment.model_dump()
    plain |= {
        "method": reference,
        "projection": {"mode": "none"},
        "protocol": "sequence" if reference == "sequential" else reference,
    }
    plain["pool"] = {name: value for name, value in plain["pool"].items() if name not in PROTECTION}
    if reference != "sequential":
        plain["order"] = default_order
    if reference == "zero_shot":
        plain |= {"pool": {}, "train": {key: plain["train"][key] for key in ("precision", "threads", "device")}}
    return Experiment.model_validate(plain)
