"""Numbers that look like faults are told."""

from __future__ import annotations

from pathlib import Path

from mcit_core.stages.results import NO_SAMPLE, UNCHANGED
from orchestration.results.notices import notices
from orchestration.results.reading import read_results
from tests.orchestration.results.test_results import cells, energy, trial, write_run


def test_a_sweep_in_order_has_none(tmp_path: Path) -> None:
    trials = [energy(f"a{s}", 0.5, s, average_accuracy=0.3 + 0.1 * s) for s in range(2)]
    trials.append(trial("z", "zero_shot", average_accuracy=0.0))
    matrix = [[0.5, 0.1, 0.1], [0.4, 0.5, 0.1], [0.6, 0.4, 0.5]]
    run = write_run(tmp_path / "run", trials, cells(trials[0], matrix))
    assert notices(read_results(run)) == []


def test_a_seed_that_was_not_used(tmp_path: Path) -> None:
    trials = [energy(f"a{s}", 0.5, s, average_accuracy=0.3) for s in range(2)]
    trials += [energy(f"b{s}", 0.99, s, average_accuracy=0.3 + 0.1 * s) for s in range(2)]
    (told,) = notices(read_results(write_run(tmp_path / "run", trials)))
    assert "task_energy 0.5 has the same accuracies with every seed" in told


def test_a_stage_that_learned_nothing_of_its_own_task(tmp_path: Path) -> None:
    row = energy("a0", 0.5, 0, average_accuracy=0.3)
    matrix = [[0.5, 0.1, 0.1], [0.4, 0.2, 0.1], [0.6, 0.9, 0.5]]
    (told,) = notices(read_results(write_run(tmp_path / "run", [row], cells(row, matrix))))
    assert "brought charts to 90.0 per cent, its own to 20.0" in told


def test_a_stage_that_left_its_weights_as_they_were(tmp_path: Path) -> None:
    rows = [energy(f"a{s}", 0.5, s, average_accuracy=0.3 + 0.1 * s) for s in range(2)]
    idle = [{"trial": row["trial"], "stage": 2, "task": "scenes", "name": UNCHANGED, "value": 1.0} for row in rows]
    (told,) = notices(read_results(write_run(tmp_path / "run", rows, [], idle)))
    assert told == "fwd_prompt, task_energy 0.5 left all weights as they were in 2 stages: nothing was learned there."


def test_a_model_without_a_sample_of_its_pretraining_data(tmp_path: Path) -> None:
    rows = [energy(f"a{s}", 0.5, s, average_accuracy=0.3 + 0.1 * s) for s in range(2)]
    stages = [{"trial": row["trial"], "stage": 0, "task": "digits", "name": NO_SAMPLE, "value": 1.0} for row in rows]
    (told,) = notices(read_results(write_run(tmp_path / "run", rows, [], stages)))
    assert told.endswith("first task as the untuned model reads it, in fwd_prompt, task_energy 0.5.")


def test_at_the_floor_every_seed_is_alike(tmp_path: Path) -> None:
    trials = [energy(f"a{s}", 0.5, s, average_accuracy=0.0) for s in range(2)]
    trials += [trial(f"z{s}", "majority", s, average_accuracy=0.3) for s in range(2)]
    assert notices(read_results(write_run(tmp_path / "run", trials))) == []


def test_one_constant_answer_right_after_a_stage(tmp_path: Path) -> None:
    row = energy("a0", 0.5, 0, average_accuracy=0.3)
    matrix = [[0.5, 0.1, 0.1], [0.4, 0.3, 0.1], [0.4, 0.3, 1.0]]
    tasks = ("digits", "charts", "scenes")
    stages = [
        {"trial": "a0", "stage": t, "task": task, "name": f"distinct_answers/{asked}", "value": value}
        for t, task in enumerate(tasks)
        for asked, value in zip(tasks, [[9, 1, 1], [1, 1, 4], [1, 1, 1]][t], strict=True)
    ]
    (told,) = notices(read_results(write_run(tmp_path / "run", [row], cells(row, matrix), stages)))
    # not of a task that has no stage yet or was forgotten, and not where the one answer is always right
    assert told.startswith("fwd_prompt, task_energy 0.5 gives one and the same answer to all of charts right after")
