"""The shipped contracts on every registered part; a new one joins by its registry line alone."""

from __future__ import annotations

from typing import Any

from mcit_core.choices import Choice
from mcit_core.registry import BENCHMARKS, MODELS, PROTECTIONS, TUNERS
from mcit_core.testing import SMALL, BenchmarkContract, ModelContract, ProtectionContract, TunerContract

#: the tests' own parts, broken on purpose; `hf`, which has no model without a folder (test_hf.py); and `smol`
#: whose packages are no part of the development install (test_smol.py); benchmarks of files (test_files.py)
BROKEN = {"failing", "noting", "damaged", "hf", "smol", "coin", "ucit", "mllm_dcl", "mllm_acl", "llava_json"}
#: tuners that promise to change nothing before they are trained; the prompts and prefixes change something at once
NEUTRAL = {"lora": True, "o_lora": True, "moe_lora": True, "adapter": True, "full": True}
NEUTRAL |= {"prompt": False, "prompt_pool": False, "prefix": False}
#: protection -> what makes it do something in three steps, other values of its fields, and a tuner that it can protect
PROTECTED: dict[str, dict[str, Any]] = {
    "projection.residual": {"tuner": "prompt", "lr": 0.1, "others": {"task_energy": 0.5, "center": True}},
    "projection.pretrained": {"tuner": "prompt", "lr": 0.1, "others": {"pretrained_energy": 0.5}},
    "projection.both": {
        "tuner": "prompt",
        "lr": 0.1,
        "settings": {"task_energy": 0.7},
        "others": {"task_energy": 0.5, "rank_budget": "equal", "allowed": "claimed", "rows": "raw"},
    },
    "projection.pegp": {"settings": {"samples": 8}, "others": {"samples": 4, "task_energy": 0.5, "center": True}},
    "averaging.fixed": {"others": {"weight": 0.5}},
    "averaging.taylor": {"others": {"outside": "clip"}},
    "replay.reservoir": {"settings": {"rows": 12}, "others": {"rows": 7, "batch_share": 0.5}},
    "regulariser.ewc": {"settings": {"strength": 1e4, "samples": 4}, "others": {"samples": 3, "strength": 9.0}},
    "regulariser.mas": {"settings": {"strength": 1e-3, "samples": 4}, "others": {"samples": 3, "strength": 9.0}},
    "regulariser.anchor": {"others": {"pull": 5.0}},  # a third party's
    "regulariser.lwf": {"others": {"strength": 9.0, "temperature": 1.0}},
    "grouping.enabled": {
        "settings": {"threshold": 1.0},
        "others": {"threshold": 0.5, "start": "pretrained", "by": "question", "route": "file"},
    },
}
#: benchmarks with fewer rows
BENCHMARK: dict[str, Choice] = {
    "mini": SMALL,
    "easy_vqa": {"kind": "easy_vqa", "train_rows": 16, "validation_rows": 8, "test_rows": 8},
}


def _class(contract: type, name: str, **attributes: object) -> None:
    words = name.replace(".", "_").split("_")
    globals()[f"Test{''.join(map(str.capitalize, words))}{contract.__name__}"] = type(name, (contract,), attributes)


for _name in TUNERS.names():
    if _name not in BROKEN:
        _class(TunerContract, _name, tuner=_name, neutral=NEUTRAL.get(_name))
for _name in PROTECTIONS.names():
    _class(ProtectionContract, _name, protection=_name, **PROTECTED.get(_name, {}))
for _name in MODELS.names():
    if _name not in BROKEN:
        _class(ModelContract, _name, model=_name)
for _name in BENCHMARKS.names():
    if _name not in BROKEN:
        _class(BenchmarkContract, _name, benchmark=BENCHMARK.get(_name, _name))
