"""Features, evaluation and sequences on the embedded model: what is promised to be equal is equal to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mcit_core.benchmarks.mini import TASKS
from mcit_core.config import Experiment
from mcit_core.data.order import data_order
from mcit_core.data.statistics import token_statistics
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment, reference_experiment
from mcit_core.models.mini import CHECKPOINT, MiniModel
from mcit_core.protection.projection import space_at
from mcit_core.stages.keys import stage_chain
from mcit_core.stages.results import UNCHANGED
from mcit_core.stages.state import StageState
from mcit_core.training.evaluation import evaluate
from mcit_core.training.sequence import Sequence
from mcit_core.training.stage import build_tuner, stage_view, train_stage
from orchestration.keep.stage_store import StageStore
from tests.support.fields import FIELDS_OF, TINY

ORDER = ("attribute", "ground")


def experiment(**settings: object) -> Experiment:
    return build_experiment(
        "tiny",
        "mini",
        "fwd_prompt",
        ORDER,
        0,
        {"train.steps": 4, "train.batch_size": 8, "pool.size": 6, "pool.top_k": 2, **settings},
    )


def test_the_checkpoint_is_what_its_card_says(tmp_path: Path) -> None:
    card = json.loads((CHECKPOINT / "card.json").read_text())
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 15e6
    assert not [path for path in CHECKPOINT.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    assert all("mini_pretraining" in command for command in card["commands"])
    assert (CHECKPOINT / "pretraining_log.jsonl").exists()
    for path in CHECKPOINT.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="damaged"):
        MiniModel(torch.device("cpu"), tmp_path)


def test_features_are_bit_equal_with_the_cache_off(bench: Workbench) -> None:
    fresh = Workbench("tiny", "tiny", "cpu", None)
    for index in (torch.arange(64), torch.tensor([5]), torch.tensor([63, 2, 40, *list(range(3, 40))])):
        cached, encoded = bench.rows("attribute", "train")[index], fresh.rows("attribute", "train")[index]
        for name in ("visual", "instruction", "instruction_mask", "query_image", "query_text"):
            assert torch.equal(getattr(cached, name), getattr(encoded, name)), name
    assert bench.data_digest("attribute") == fresh.data_digest("attribute")
    state, _ = train_stage(experiment(), bench, 0, None)
    again, _ = train_stage(experiment(), fresh, 0, None)
    assert state.equals(again)


def test_a_damaged_feature_file_is_made_again(tmp_path: Path) -> None:
    first = Workbench("tiny", "mini", "cpu", tmp_path)
    wanted = first.rows("digit", "validation")[torch.arange(10)].visual
    path = next(tmp_path.glob("*.arrow"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="damaged"):
        rows = Workbench("tiny", "mini", "cpu", tmp_path).rows("digit", "validation")
    assert torch.equal(rows[torch.arange(10)].visual, wanted)


@pytest.mark.parametrize("task", TASKS)
def test_teacher_forcing_gives_the_verdict_of_greedy_generation(task: str, bench: Workbench) -> None:
    tuner = build_tuner(experiment(), bench, left_by(experiment(), 0, bench))
    for through in (None, tuner):
        rows = bench.rows(task, "test")
        quick = evaluate(bench.model, through, rows, bench.benchmark, task)
        slow = evaluate(bench.model, through, rows, bench.benchmark, task, teacher_forcing=False)
        assert quick.points == slow.points
        assert quick.answers == slow.answers


def test_the_model_answers_its_own_mixture(features: Path) -> None:
    bench = Workbench("tiny", "mini", "cpu", features)  # all 300 rows
    score = evaluate(bench.model, None, bench.rows("pretraining", "retention"), bench.benchmark, "pretraining")
    assert score.points.accuracy > 0.5
    slow = evaluate(
        bench.model, None, bench.rows("pretraining", "retention"), bench.benchmark, "pretraining", teacher_forcing=False
    )
    assert score.points == slow.points


def test_statistics_are_those_of_all_unpadded_tokens(bench: Workbench) -> None:
    rows = bench.rows("attribute", "train")
    features = rows[torch.arange(10)]
    made = token_statistics(bench.model, features, "raw")
    tokens = 10 * features.visual.shape[1] + int(features.instruction_mask.sum())
    assert made.count == tokens
    assert made.gram.dtype == torch.float64
    assert torch.allclose(made.gram, made.gram.T)


def test_selection_depends_on_image_and_instruction(bench: Workbench) -> None:
    tuner = build_tuner(experiment(**{"pool.size": 20, "pool.top_k": 4}), bench, None)
    features = bench.rows("attribute", "train")[torch.arange(32)]
    chosen = tuner.inputs(features, training=False).chosen
    swapped = type(features)(
        features.visual,
        features.instruction,
        features.instruction_mask,
        features.query_image,
        features.query_text.roll(1, 0),
    )
    assert chosen is not None
    other = tuner.inputs(swapped, training=False).chosen
    assert other is not None
    assert (chosen != other).any(1).any()  # one image, another instruction
    assert (chosen[1:] != chosen[:-1]).any()
    assert (chosen.sort(1).values == chosen).all()  # pool order


def test_the_same_experiment_twice_is_bit_equal(bench: Workbench) -> None:
    runs = []
    for _ in range(2):
        results = list(Sequence(experiment(), bench))
        runs.append(
            [
                (r.stage, r.accuracy, {k: v for k, v in r.metrics.items() if not k.startswith("seconds")})
                for r in results
            ]
        )
    assert runs[0] == runs[1]
    assert [stage for stage, _, _ in runs[0]] == [-1, 0, 1]


@pytest.mark.parametrize("reuse", ["share", "penalise", "freeze"])
def test_a_restored_state_goes_on_bit_equal(reuse: str, bench: Workbench, tmp_path: Path) -> None:
    config = experiment(**{"pool.reuse": reuse})
    first, _ = train_stage(config, bench, 0, None)
    first.save(tmp_path / "state.safetensors")
    restored = type(first).load(tmp_path / "state.safetensors")
    assert restored.equals(first)
    straight, _ = train_stage(config, bench, 1, first)
    resumed, _ = train_stage(config, bench, 1, restored)
    assert straight.equals(resumed)


def test_transfer_over_the_untrained_tuner_is_what_the_stages_before_gave(bench: Workbench, tmp_path: Path) -> None:
    one = build_experiment("tiny", "mini", "sequential", (*ORDER, "bars"), 0, {"train.steps": 4, "pool.size": 6})
    began = build_tuner(one, bench, None)
    state, gains = None, []
    for stage, task in enumerate(one.order[1:]):
        state, _ = train_stage(one, bench, stage, state)
        rows = bench.rows(task, "test")
        ends = [
            evaluate(bench.model, tuner, rows, bench.benchmark, task).points.content_accuracy
            for tuner in (build_tuner(one, bench, state.group(0)), began)
        ]
        gains.append(ends[0] - ends[1])
    assert any(gains)
    expected = [gains[0], sum(gains) / 2, sum(gains) / 2]
    for store in (None, StageStore(tmp_path), StageStore(tmp_path)):
        _, *results = Sequence(one, bench, store)
        assert [found.metrics["content_forward_transfer_untrained"] for found in results] == pytest.approx(expected)


def test_freeze_leaves_claimed_prompts_and_keys_alone(bench: Workbench) -> None:
    config = experiment(**{"pool.reuse": "freeze", "pool.size": 20, "pool.claim_share": 0.05})
    first, _ = train_stage(config, bench, 0, None)
    claimed = first.tensors["usage"][0] / first.tensors["usage"][0].sum() > 0.05
    assert claimed.any()
    second, _ = train_stage(config, bench, 1, first)
    for name in ("prompts", "image_keys", "text_keys"):
        assert torch.equal(first.tensors[name][claimed], second.tensors[name][claimed])
        assert not torch.equal(first.tensors[name], second.tensors[name])


def test_a_stage_moves_inside_its_space(bench: Workbench) -> None:
    config = experiment(**{"projection.task_energy": 0.6})
    first, _ = train_stage(config, bench, 0, None)
    second, _ = train_stage(config, bench, 1, first)
    space = space_at(config.projection, stage_view(config, bench, 1, None))
    change = (second.tensors["prompts"] - first.tensors["prompts"]).double()
    outside = (change - space.project(change)).norm() / change.norm()
    bound = 8 * torch.finfo(torch.float32).eps * first.tensors["prompts"].double().norm() / change.norm()
    assert change.norm() > 0.1
    # one rounding a step at most, four steps
    assert outside < max(1e-5, 4 * float(bound))


def test_stages_come_back_from_the_store_and_are_shared(bench: Workbench, tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    trained = list(Sequence(experiment(), bench, store))
    again = list(Sequence(experiment(), bench, store))
    assert [r.reused for r in trained] == [False] * 3
    assert [r.reused for r in again] == [False, True, True]
    assert [r.accuracy for r in trained] == [r.accuracy for r in again]
    sequential = reference_experiment(experiment(), "sequential", ORDER)
    direct = reference_experiment(experiment(), "direct", ORDER)
    list(Sequence(sequential, bench, store))
    shared = list(Sequence(direct, bench, store))
    assert [r.reused for r in shared] == [False, True, False]  # its first stage is sequential's
    assert shared[1].accuracy[0].task == "attribute"


def test_a_damaged_stage_is_set_aside_and_trained_again(bench: Workbench, tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    wanted = [r.accuracy for r in Sequence(experiment(), bench, store)]
    for weights in tmp_path.rglob("state.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="damaged"):
        again = list(Sequence(experiment(), bench, store))
    assert [r.accuracy for r in again] == wanted
    assert not any(r.reused for r in again)
    assert list((tmp_path / "damaged").iterdir())


CHANGES = {
    "pool.size": 7,
    "pool.length": 3,
    "pool.top_k": 3,
    "pool.image_weight": 0.9,
    "pool.pull": 0.1,
    "pool.key_lr": 0.5,
    "pool.standardise": False,
    "pool.reuse": "freeze",
    "pool.reuse_penalty": 0.9,
    "pool.claim_share": 0.5,
    "projection.mode": "residual",
    "projection.pretrained_energy": 0.5,
    "projection.task_energy": 0.3,
    "projection.energy_of": "total",
    "projection.rank_budget": "equal",
    "projection.center": True,
    "train.steps": 3,
    "train.batch_size": 4,
    "train.lr": 0.01,
    "train.clip": 0.001,
    "train.precision": "bfloat16",
}
BASES: list[dict[str, object]] = [
    {},
    {"projection.mode": "none"},
    {"projection.mode": "residual"},
    {"projection.mode": "pretrained", "pool.reuse": "freeze"},
]


#: what stages left, by experiment and stage
LEFT: dict[tuple[str, int], StageState] = {}


def left_by(config: Experiment, stage: int, bench: Workbench) -> StageState:
    """What the first or second stage leaves, trained once."""
    name = config.model_dump_json(), stage
    if name not in LEFT:
        LEFT[name], _ = train_stage(config, bench, stage, left_by(config, 0, bench) if stage else None)
    return LEFT[name]


def assert_equal_keys_leave_equal_states(one: Experiment, other: Experiment, bench: Workbench) -> None:
    for stage in (0, 1):
        keys = [stage_chain(e, {}, {})[stage].key for e in (one, other)]
        if keys[0] == keys[1] and one != other:
            assert left_by(one, stage, bench).equals(left_by(other, stage, bench))


@pytest.mark.parametrize("field", CHANGES)
def test_equal_key_means_bit_equal_state(field: str, bench: Workbench) -> None:
    """Change one field: where a stage's key stays, so does what the stage leaves."""
    tried = 0
    for base in BASES:
        try:
            other = experiment(**{**base, field: CHANGES[field]})
        except ValidationError:  # nothing of this point reads the field
            continue
        assert_equal_keys_leave_equal_states(experiment(**base), other, bench)
        tried += 1
    assert tried


def test_an_active_field_changes_the_key() -> None:
    base = experiment(**{"pool.reuse": "penalise"})
    for field, value in CHANGES.items():
        if field == "projection.rank_budget":
            continue
        other = experiment(**{"pool.reuse": "penalise", field: value})
        assert stage_chain(base, {}, {})[1].key != stage_chain(other, {}, {})[1].key, field


PAIRS = [(preset, field) for preset, fields in FIELDS_OF.items() for field in fields]


@pytest.mark.filterwarnings("ignore:stage")
@pytest.mark.parametrize(("preset", "field"), PAIRS)
def test_a_key_holds_what_the_method_reads_and_nothing_else(preset: str, field: str, bench: Workbench) -> None:
    value, active = FIELDS_OF[preset][field]
    one = build_experiment("tiny", "mini", preset, ORDER, 0, TINY)
    if active is None:
        with pytest.raises(ValidationError, match="leave it out"):
            build_experiment("tiny", "mini", preset, ORDER, 0, {**TINY, field: value})
        return
    other = build_experiment("tiny", "mini", preset, ORDER, 0, {**TINY, field: value})
    assert one != other
    keys = [stage_chain(e, {}, {})[1].key for e in (one, other)]
    assert (keys[0] != keys[1]) == active
    assert_equal_keys_leave_equal_states(one, other, bench)


#: every value that any test above tries, for random changes
VALUES = [*CHANGES.items(), *((field, value) for fields in FIELDS_OF.values() for field, (value, _) in fields.items())]


def read_by(preset: str) -> list[tuple[str, object]]:
    """Those of VALUES that a preset takes, each by itself."""
    found = []
    for field, value in VALUES:
        try:
            build_experiment("tiny", "mini", preset, ORDER, 0, {**TINY, field: value})
        except ValidationError:
            continue
        found.append((field, value))
    return found


@st.composite
def changed_presets(draw: st.DrawFn) -> tuple[str, list[tuple[str, object]]]:
    preset = draw(st.sampled_from(sorted(FIELDS_OF)))
    return preset, draw(st.lists(st.sampled_from(read_by(preset)), min_size=1, max_size=3))


@pytest.mark.filterwarnings("ignore:stage")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=changed_presets())
def test_random_experiments_of_one_key_leave_one_state(
    drawn: tuple[str, list[tuple[str, object]]], bench: Workbench
) -> None:
    preset, changed = drawn
    try:
        other = build_experiment("tiny", "mini", preset, ORDER, 0, {**TINY, **dict(changed)})
    except ValidationError:
        reject()
    assert_equal_keys_leave_equal_states(build_experiment("tiny", "mini", preset, ORDER, 0, TINY), other, bench)


@pytest.mark.parametrize(("left", "idle"), [(0, True), (1, False)])
def test_a_stage_that_leaves_its_weights_as_they_were_says_so(left: int, idle: bool, bench: Workbench) -> None:
    """A pool of which earlier stages have claimed everything."""
    config = experiment(**{"pool.size": 4, "pool.top_k": 2})
    first, measured = train_stage(config, bench, 0, None)
    assert UNCHANGED not in measured.metrics
    usage = torch.ones(1, 4)
    usage[:, :left] = 0
    second, measured = train_stage(config, bench, 1, StageState({**first.tensors, "usage": usage}))
    assert measured.metrics.get(UNCHANGED) == (1.0 if idle else None)
    assert torch.equal(first.tensors["prompts"], second.tensors["prompts"]) == idle


def test_a_batch_that_is_larger_than_the_task_is_refused(bench: Workbench) -> None:
    with pytest.raises(ValueError, match="batch_size 65 is larger than attribute, which has 64 training rows; set 64"):
        train_stage(experiment(**{"train.batch_size": 65}), bench, 0, None)


def test_cpu_seconds_are_measured_where_seconds_are(bench: Workbench) -> None:
    for method in ("fwd_prompt", "majority"):
        config = build_experiment("tiny", "mini", method, ORDER, 0, TINY if method == "fwd_prompt" else {})
        for result in Sequence(config, bench):
            seconds = {name for name in result.metrics if name.startswith("seconds/") and not name.endswith("_cpu")}
            assert seconds
            assert all(result.metrics[f"{name}_cpu"] > 0 for name in seconds)


def test_data_order_is_whole_epochs_from_seed_and_task() -> None:
    order = data_order(3, "ground", rows=10, batch=4, steps=5)
    assert order.shape == (5, 4)
    assert sorted(order.reshape(-1)[:10]) == list(range(10))
    assert (order == data_order(3, "ground", 10, 4, 5)).all()
    assert (order != data_order(4, "ground", 10, 4, 5)).any()
    assert (order != data_order(3, "bars", 10, 4, 5)).any()
