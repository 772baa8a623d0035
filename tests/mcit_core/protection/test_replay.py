"""Experience replay: the reservoir's budget and chances, and the rows of every batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcit_core.config import Experiment
from mcit_core.data.order import data_order
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models.mini import FrozenFeatures
from mcit_core.protection import StageStart
from mcit_core.protection.replay import Reservoir, ReservoirSettings, buffer_bytes, reservoir
from mcit_core.stages.keys import JOINT
from mcit_core.training.batches import batches
from mcit_core.training.sequence import Sequence
from mcit_core.training.stage import build_tuner, train_stage

ORDER = ("attribute", "ground", "bars")
sizes = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1)


@given(st.integers(0, 2**32), sizes, st.integers(1, 200))
def test_the_budget_is_kept_exactly(seed: int, seen: dict[str, int], capacity: int) -> None:
    kept = reservoir(seed, seen, capacity)
    assert len(kept) == len(set(kept)) == min(capacity, sum(seen.values()))
    assert all(0 <= row < seen[task] for task, row in kept)
    assert kept == reservoir(seed, dict(reversed(seen.items())), capacity)


@given(st.integers(0, 2**32), sizes, st.integers(1, 60))
def test_a_dropped_row_never_comes_back(seed: int, seen: dict[str, int], capacity: int) -> None:
    """What is kept after a task was kept before it: the whole past is not needed to make the next buffer."""
    names = list(seen)
    for count in range(1, len(names)):
        earlier = set(reservoir(seed, {name: seen[name] for name in names[:count]}, capacity))
        later = set(reservoir(seed, {name: seen[name] for name in names[: count + 1]}, capacity))
        assert {row for row in later if row[0] != names[count]} <= earlier


def test_every_row_has_the_same_chance() -> None:
    seen, capacity, seeds = {"small": 10, "large": 30}, 8, 2000
    counts = dict.fromkeys(((task, row) for task, n in seen.items() for row in range(n)), 0)
    for seed in range(seeds):
        for picked in reservoir(seed, seen, capacity):
            counts[picked] += 1
    expected = seeds * capacity / 40  # 400; the deviation of a binomial is 18
    assert all(abs(count - expected) < 5 * 18 for count in counts.values())


def marks(features: FrozenFeatures) -> list[bytes]:
    """What tells a row from all others, whatever it is padded to."""
    words = [row[mask.bool()] for row, mask in zip(features.instruction, features.instruction_mask, strict=True)]
    return [v.numpy().tobytes() + w.numpy().tobytes() for v, w in zip(features.visual, words, strict=True)]


def experiment(**settings: object) -> Experiment:
    base = {"train.steps": 6, "train.batch_size": 8, "replay.kind": "reservoir"}
    return build_experiment("tiny", "mini", "sequential_lora", ORDER, 0, {**base, **settings})


def replaying(config: Experiment, bench: Workbench, task: str, *earlier: str) -> list[Reservoir]:
    """The replay of a stage on `task` after the tasks `earlier`."""
    tuner = build_tuner(config, bench, None)
    start = StageStart(config, bench, len(earlier), task, earlier, tuner, tuner.state(), lambda: tuner)
    assert isinstance(config.replay, ReservoirSettings)
    return [Reservoir(config.replay, start)]


@pytest.mark.parametrize(("share", "old"), [(0.25, 2), (0.5, 4), (0.01, 1)])
def test_a_batch_has_its_share_of_kept_rows(share: float, old: int, bench: Workbench) -> None:
    config = experiment(**{"replay.rows": 12, "replay.batch_share": share})
    owners: dict[bytes, set[tuple[str, int]]] = {}
    for task in ORDER:
        rows = bench.rows(task, "train")
        for row, mark in enumerate(marks(rows[torch.arange(len(rows))])):
            owners.setdefault(mark, set()).add((task, row))
    kept = set(reservoir(0, {task: len(bench.rows(task, "train")) for task in ORDER[:2]}, 12))
    made = list(batches(config, bench, "bars", replaying(config, bench, "bars", "attribute", "ground")))
    assert len(made) == 6
    for features, labels in made:
        assert len(features) == len(labels) == 8
        found = [owners[mark] for mark in marks(features)]
        assert sum(any(task == "bars" for task, _ in owner) for owner in found) == 8 - old
        assert sum(bool(owner & kept) for owner in found) == old


def test_the_new_rows_are_those_of_the_plain_order_cut_short(bench: Workbench) -> None:
    config = experiment(**{"replay.rows": 12})
    rows = bench.rows("ground", "train")
    order = data_order(0, "ground", len(rows), 8, 6)
    for (features, _), picked in zip(
        batches(config, bench, "ground", replaying(config, bench, "ground", "attribute")), order, strict=True
    ):
        assert marks(features)[:6] == marks(rows[torch.tensor(picked[:6])])


def test_without_earlier_tasks_nothing_is_replayed(bench: Workbench) -> None:
    with_replay, _ = train_stage(experiment(), bench, 0, None)
    without, _ = train_stage(experiment(**{"replay.kind": "none"}), bench, 0, None)
    assert with_replay.equals(without)


def test_labels_stay_with_their_rows_when_batches_are_joined(bench: Workbench) -> None:
    config = experiment(**{"replay.rows": 12, "replay.batch_share": 0.5})
    answers = {}
    for task in ORDER[:2]:
        rows = bench.rows(task, "train")
        for mark, label in zip(marks(rows[torch.arange(len(rows))]), rows.labels, strict=True):
            answers[mark] = label[label != -100].tolist()
    for features, labels in batches(config, bench, "ground", replaying(config, bench, "ground", "attribute")):
        for mark, label in zip(marks(features), labels, strict=True):
            assert label[label != -100].tolist() == answers[mark]


def test_joint_training_draws_from_every_task(bench: Workbench) -> None:
    config = build_experiment("tiny", "mini", "multitask", ORDER, 0, {"train.steps": 6, "train.batch_size": 8})
    made = list(batches(config, bench, JOINT))
    assert len(made) == 18  # the steps of the whole sequence
    seen = {mark for features, _ in made for mark in marks(features)}
    for task in ORDER:
        rows = bench.rows(task, "train")
        assert seen & set(marks(rows[torch.arange(len(rows))]))


def test_memory_counts_the_kept_rows(bench: Workbench) -> None:
    kept = [("attribute", 0), ("ground", 3)]
    texts = sum(
        len(bench.rows(t, "train").instructions[row]) + len(bench.rows(t, "train").answers[row]) for t, row in kept
    )
    assert buffer_bytes(bench, kept) == 2 * 48 * 48 * 3 + texts
    with_replay = list(Sequence(experiment(**{"train.steps": 1, "replay.rows": 5}), bench))
    without = list(Sequence(experiment(**{"train.steps": 1, "replay.kind": "none"}), bench))
    size = buffer_bytes(bench, reservoir(0, {t: len(bench.rows(t, "train")) for t in ORDER}, 5))
    assert with_replay[-1].metrics["memory_bytes"] - without[-1].metrics["memory_bytes"] == size
