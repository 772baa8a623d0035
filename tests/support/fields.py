"""Which fields the stages of a method depend on, for tests of keys."""

from __future__ import annotations

TINY = {"train.steps": 3, "train.batch_size": 8}
#: preset -> field -> another value, and whether the stages with earlier tasks depend on it
FIELDS_OF: dict[str, dict[str, tuple[object, bool]]] = {
    "sequential_prompt": {"prompt.length": (3, True)},
    "sequential_prefix": {"prefix.length": (3, True), "prefix.project_values": (True, False)},
    "sequential_lora": {
        "lora.rank": (2, True),
        "lora.alpha": (4, True),
        "lora.orthogonality": (0.1, False),
        "averaging.weight": (0.5, False),
        "averaging.outside": ("clip", False),
        "replay.rows": (7, False),
        "replay.batch_share": (0.5, False),
        "regulariser.strength": (9.0, False),
        "regulariser.samples": (3, False),
        "regulariser.temperature": (1.0, False),
        "grouping.threshold": (1.0, False),
        "projection.samples": (9, False),
        "projection.task_energy": (0.3, False),
    },
    "sequential_adapter": {"adapter.bottleneck": (3, True)},
    "o_lora": {"lora.orthogonality": (50.0, True)},
    "pegp_prefix": {"prefix.project_values": (True, True), "projection.samples": (9, True)},
    "pegp_lora": {
        "projection.task_energy": (0.3, True),
        "projection.samples": (9, True),
        "projection.energy_of": ("remaining", True),
        "projection.pretrained_energy": (0.5, False),
        "projection.rank_budget": ("equal", False),
        "averaging.kind": ("fixed", True),
    },
    "ema_fixed": {"averaging.weight": (0.5, True), "averaging.outside": ("clip", False)},
    "ema_taylor": {
        "averaging.outside": ("clip", True),
        "averaging.weight": (0.5, False),
        "averaging.kind": ("per_tensor", True),
    },
    "ema_per_tensor": {"averaging.outside": ("clip", False), "averaging.weight": (0.5, False)},
    "er": {"replay.rows": (7, True), "replay.batch_share": (0.5, True), "regulariser.strength": (9.0, False)},
    "ewc": {
        "regulariser.strength": (1e6, True),
        "regulariser.samples": (3, True),
        "regulariser.temperature": (1.0, False),
    },
    "lwf": {
        "regulariser.strength": (9.0, True),
        "regulariser.temperature": (1.0, True),
        "regulariser.samples": (3, False),
    },
    "llaca": {"grouping.threshold": (1.0, True), "averaging.weight": (0.5, False)},
}
