"""Which fields the stages of a method depend on, for tests of keys."""

from __future__ import annotations

TINY = {"train.steps": 3, "train.batch_size": 8}
#: preset -> field -> another value, and whether the stages with earlier tasks depend on it; None: it is refused, since
#: nothing of the method reads it
FIELDS_OF: dict[str, dict[str, tuple[object, bool | None]]] = {
    "sequential_prompt": {"prompt.length": (3, True)},
    "sequential_prefix": {"prefix.length": (3, True), "prefix.project_values": (True, False)},
    "sequential_lora": {
        "lora.rank": (2, True),
        "lora.alpha": (4, True),
        "lora.orthogonality": (0.1, None),
        "averaging.weight": (0.5, None),
        "averaging.outside": ("clip", None),
        "replay.rows": (7, None),
        "replay.batch_share": (0.5, None),
        "regulariser.strength": (9.0, None),
        "regulariser.samples": (3, None),
        "regulariser.temperature": (1.0, None),
        "grouping.threshold": (1.0, None),
        "projection.samples": (9, None),
        "projection.task_energy": (0.3, None),
    },
    "sequential_adapter": {"adapter.bottleneck": (3, True)},
    "o_lora": {"lora.orthogonality": (50.0, True)},
    "pegp_prompt": {"projection.rows": ("raw", True), "projection.allowed": ("claimed", None)},
    "fwd_prompt": {
        "projection.rows": ("raw", True),
        "projection.allowed": ("claimed", True),
        "projection.keys": (0.97, True),
    },
    "pegp_prefix": {"prefix.project_values": (True, True), "projection.samples": (9, True)},
    "pegp_lora": {
        "projection.task_energy": (0.3, True),
        "projection.samples": (9, True),
        "projection.energy_of": ("remaining", True),
        "projection.pretrained_energy": (0.5, None),
        "projection.rank_budget": ("equal", None),
        "projection.rows": ("raw", False),  # its inputs are behind the layers' norms
        "averaging.kind": ("fixed", True),
    },
    "ema_fixed": {"averaging.weight": (0.5, True), "averaging.outside": ("clip", None)},
    "ema_taylor": {
        "averaging.outside": ("clip", True),
        "averaging.weight": (0.5, None),
        "averaging.kind": ("per_tensor", True),
    },
    "ema_per_tensor": {"averaging.outside": ("clip", None), "averaging.weight": (0.5, None)},
    "er": {"replay.rows": (7, True), "replay.batch_share": (0.5, True), "regulariser.strength": (9.0, None)},
    "ewc": {
        "regulariser.strength": (1e6, True),
        "regulariser.samples": (3, True),
        "regulariser.temperature": (1.0, None),
    },
    "lwf": {
        "regulariser.strength": (9.0, True),
        "regulariser.temperature": (1.0, True),
        "regulariser.samples": (3, None),
    },
    "mas": {
        "regulariser.strength": (1e6, True),
        "regulariser.samples": (3, True),
        "regulariser.temperature": (1.0, None),
    },
    "llaca": {
        "grouping.threshold": (1.0, True),
        "grouping.start": ("pretrained", True),
        "grouping.by": ("question", True),
        "grouping.route": ("file", True),
        "averaging.weight": (0.5, None),
    },
}
