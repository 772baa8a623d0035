"""Every preset: stages go on from a restored state bit-equal, and points that make no sense are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mcit_core.config import UNTRAINED, Experiment
from mcit_core.data.workbench import Workbench
from mcit_core.methods import PRESETS, build_experiment, main, method_names, reference_experiment
from mcit_core.stages.state import StageState
from mcit_core.training.sequence import Sequence
from mcit_core.training.stage import train_stage
from orchestration.keep.stage_store import StageStore

ORDER = ("attribute", "ground", "bars")
TINY = {"train.steps": 2, "train.batch_size": 8}
CHAINED = [name for name in PRESETS if PRESETS[name].settings.get("protocol", "sequence") == "sequence"]


def small(name: str, order: tuple[str, ...] = ORDER) -> Experiment:
    """A preset in seconds: what measures on rows of the task before takes few of them."""
    parts = build_experiment("tiny", "mini", name, order, 0, TINY).protections()
    few = {f"{part.split('.')[0]}.samples": 16 for part, read in parts.items() if "samples" in type(read).model_fields}
    return build_experiment("tiny", "mini", name, order, 0, {**TINY, **few})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StageStore:
    """One for all presets: those of one tuner share the untouched model's evaluations, and first stages."""
    return StageStore(tmp_path_factory.mktemp("stages"))


@pytest.mark.filterwarnings("ignore:stage")  # of spaces that are used up, which is told elsewhere
@pytest.mark.parametrize("name", CHAINED)
def test_a_stage_from_a_restored_state_is_that_of_the_uninterrupted_run(
    name: str, bench: Workbench, tmp_path: Path
) -> None:
    config = small(name)
    straight: StageState | None = None
    restored: StageState | None = None
    for stage in range(len(ORDER)):
        straight, _ = train_stage(config, bench, stage, straight)
        again, _ = train_stage(config, bench, stage, restored)
        again.save(tmp_path / f"{stage}.safetensors")
        restored = StageState.load(tmp_path / f"{stage}.safetensors")
        assert straight.equals(restored), stage


@pytest.mark.filterwarnings("ignore:stage")
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_to_its_end_and_again_from_the_store(name: str, bench: Workbench, store: StageStore) -> None:
    config = small(name, ORDER[:2])
    first, second = (list(Sequence(config, bench, store)) for _ in range(2))
    assert [r.accuracy for r in first] == [r.accuracy for r in second]
    assert all(r.reused for r in second[1:])
    assert first[-1].stage == {"zero_shot": -1, "majority": -1, "multitask": 0}.get(config.protocol, 1)
    if config.protocol not in UNTRAINED:
        assert first[-1].metrics["trained_parameters"] > 0
        assert first[-1].metrics["memory_bytes"] > 0


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is(name: str) -> None:
    point = PRESETS[name]
    assert point.summary
    assert point.given or not point.paper or name.startswith("sequential")


def test_the_list_of_methods_names_every_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    blocks = capsys.readouterr().out.split("\n\n")
    named = {block.split()[0]: block for block in blocks if block.strip()}
    assert list(named) == method_names()
    assert "2405.13383" in named["pegp_lora"]
    assert "away from the inputs" in named["pegp_lora"]
    assert all("is not told the task" in block for block in named.values())


def test_a_reference_of_any_preset_protects_nothing() -> None:
    for name in CHAINED:
        config = build_experiment("tiny", "mini", name, ORDER, 0, TINY)
        plain = reference_experiment(config, "sequential", ORDER)
        assert not plain.protections()
        assert plain.pool.reuse == "share"
        assert plain.train == config.train
        assert plain.tuner == ("lora" if config.tuner == "o_lora" else config.tuner)


REFUSED = {
    "top_k_without_a_pool": ("sequential_lora", {"pool.top_k": 2}, "no pool"),
    "pegp_on_full": ("sequential_full", {"projection.mode": "pegp"}, "projection.mode none"),
    "pegp_on_o_lora": ("o_lora", {"projection.mode": "pegp"}, "by itself"),
    "ewc_on_o_lora": ("o_lora", {"regulariser.kind": "ewc"}, "nothing to hold in tuner o_lora"),
    "both_on_lora": ("sequential_lora", {"projection.mode": "both"}, "use projection.mode pegp"),
    "rank_without_lora": ("fwd_prompt", {"lora.rank": 4}, "no lora"),
    "options_of_nobody": ("fwd_prompt", {"options": {"experts": 4}}, "options.experts"),
    "protected_joint_training": ("multitask", {"averaging.kind": "taylor"}, "no earlier stage"),
    "replay_in_joint_training": ("multitask", {"replay.kind": "reservoir"}, "no earlier stage"),
    "weight_above_one": ("ema_fixed", {"averaging.weight": 1.5}, "less than or equal to 1"),
    "batch_all_old": ("er", {"replay.batch_share": 1.0}, "less than 1"),
    "weight_of_another_kind": ("llaca", {"averaging.weight": 0.5}, "taylor does not read it"),
    "strength_of_nothing": ("sequential_lora", {"regulariser.strength": 2.0}, "reads nothing"),
    "misspelt_strength": ("ewc", {"regulariser.stregth": 2.0}, "did you mean 'strength'"),
    "orthogonality_without_o_lora": ("sequential_lora", {"lora.orthogonality": 0.1}, "does not read it"),
    "rank_of_another_tuner": ("moe_lora", {"lora.rank": 4}, "has no lora"),
    "unknown_grouping": ("llaca", {"grouping.enabled": "yes"}, "expected one of false, true"),
    "unknown_averaging": ("llaca", {"averaging.kind": "tailor"}, "taylor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_point_that_makes_no_sense_is_refused_with_the_reason(name: str) -> None:
    method, settings, fragment = REFUSED[name]
    with pytest.raises(ValidationError, match=fragment):
        build_experiment("tiny", "mini", method, ORDER, 0, settings)


def test_every_tuner_is_a_method_of_its_own_name() -> None:
    assert {"prompt_pool", "prompt", "prefix", "lora", "adapter", "full", "o_lora"} <= set(method_names())
    with pytest.raises(KeyError, match="there are"):
        build_experiment("tiny", "mini", "nothing_of_the_kind", ORDER)
