"""Reading a RUN and summing it up, against numbers worked by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import JsonValue
from rich.console import Console

from orchestration.keep.tables import Row, stage_results, text_in
from orchestration.report.console import first_line, print_summary
from orchestration.results.comparisons import axis_contrast, baseline_of, compare, paired_difference
from orchestration.results.estimates import Design, estimate, estimate_units, holm
from orchestration.results.matrices import accuracy_matrix, mean_matrix
from orchestration.results.reading import metric_names, read_results
from orchestration.results.settings import VALIDATION, Setting, best_setting, candidates, settings_summary
from orchestration.results.words import format_number, setting_label
from tests.support.examples import example

AXIS = "projection.task_energy"
MEASURES = (
    "average_accuracy",
    "learning_accuracy",
    "forgetting",
    "forward_transfer",
    "transfer_to_direct",
    "pretrained_retention",
    "trained_parameters",
    "memory_bytes",
    "validation/average_accuracy",
)
ORDER = "digits>charts>scenes"


def trial(name: str, method: str = "fwd_prompt", seed: int = 0, order: str = ORDER, **values: Any) -> Row:
    """A row of trials.parquet; every metric that is not given is null. Dots in names are written as `__`."""
    row: Row = {
        "trial": name,
        "method": method,
        "seed": seed,
        "order": order,
        "status": "FINISHED",
        "error": None,
        "seconds": 12.5,
        AXIS: None,
        **dict.fromkeys(MEASURES),
    }
    return row | {key.replace("__", "."): value for key, value in values.items()}


def cells(row: Row, matrix: list[list[float | None]], untouched: list[float] | None = None) -> list[Row]:
    """The rows of accuracy.parquet of one trial."""
    tasks = text_in(row, "order").split(">")
    stages = [(-1, None, untouched)] if untouched else []
    stages += [(t, tasks[t], values) for t, values in enumerate(matrix)]
    return [
        {
            "trial": row["trial"],
            "method": row["method"],
            "seed": row["seed"],
            "order": row["order"],
            "stage": stage,
            "stage_task": stage_task,
            "task": task,
            "split": split,
            "accuracy": value,
            "content_accuracy": value,
            "n": 50,
        }
        for stage, stage_task, values in stages
        for task, value in zip(tasks, values, strict=True)
        for split in ("test", "validation")
        if value is not None
    ]


def write_run(
    folder: Path, trials: list[Row], accuracy: list[Row] | None = None, stages: list[Row] | None = None, **sweep: Any
) -> Path:
    """A RUN folder. A table without rows is written without columns, which readers must survive as well."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("trials", trials), ("accuracy", accuracy or []), ("stages", stages or [])):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    sweep = {
        "name": folder.name,
        "benchmark": "mini",
        "model": "mini",
        "method": "fwd_prompt",
        "axes": {AXIS: [0.5, 0.99]},
        "provenance": {"versions": {"torch": "2.0"}, "commit": "abc"},
    } | sweep
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return folder


def energy(name: str, value: float, seed: int, **values: Any) -> Row:
    return trial(name, seed=seed, **values) | {AXIS: value}


def paired_trials() -> list[Row]:
    """Differences 0.99 minus 0.5 are 0.10, 0.20, 0.30 over the seeds; sequential lies at 0.2, 0.2, 0.2."""
    low, high = (0.3, 0.4, 0.5), (0.4, 0.6, 0.8)
    trials = []
    for seed in range(3):
        trials += [
            energy(f"a{seed}", 0.5, seed, average_accuracy=low[seed]),
            energy(f"b{seed}", 0.99, seed, average_accuracy=high[seed]),
            trial(f"s{seed}", "sequential", seed, average_accuracy=0.2),
        ]
    return trials


def test_estimate_by_hand() -> None:
    found = estimate([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert found.spread == pytest.approx(0.1)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert found.n == 3


def test_missing_values_are_left_out_and_counted() -> None:
    found = estimate([0.5, None, float("nan"), float("inf")])
    assert (found.mean, found.spread, found.half_width, found.n) == (0.5, None, None, 1)
    assert estimate([None]).mean is None
    assert estimate([]).n == 0


def test_paired_difference_by_hand() -> None:
    low, high = Setting("fwd_prompt", ((AXIS, 0.5),)), Setting("fwd_prompt", ((AXIS, 0.99),))
    found = paired_difference(paired_trials(), "average_accuracy", high, low)
    assert found.mean == pytest.approx(0.2)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert found.n == 3
    assert found.p == pytest.approx(0.0741799, rel=1e-5)  # t = 2 sqrt(3), 2 degrees of freedom


def test_pairs_need_the_same_seed_and_order_and_both_values() -> None:
    trials = paired_trials()
    trials[1]["status"] = "FAILED"
    trials[4]["average_accuracy"] = None
    low, high = Setting("fwd_prompt", ((AXIS, 0.5),)), Setting("fwd_prompt", ((AXIS, 0.99),))
    found = paired_difference(trials, "average_accuracy", high, low)
    assert (found.n, found.half_width, found.p) == (1, None, None)
    assert found.mean == pytest.approx(0.3)
    trials[7]["order"] = "scenes>charts>digits"
    assert paired_difference(trials, "average_accuracy", high, low).n == 0


def test_differences_without_variation() -> None:
    assert estimate_units({(seed, "a"): 0.0 for seed in range(3)}).p == 1.0
    found = estimate_units({(seed, "a"): 0.25 for seed in range(3)})
    assert (found.mean, found.half_width, found.p) == (0.25, 0.0, None)


def test_below_three_seeds_there_is_no_interval_and_no_p_value() -> None:
    found = estimate_units({(0, "a"): 0.25, (1, "a"): 0.75})
    assert (found.mean, found.half_width, found.n, found.p) == (0.5, None, 2, None)
    assert estimate([0.25, 0.75]).values == (0.25, 0.75)


def test_axis_contrast_averages_other_axes_within_a_seed() -> None:
    trials = []
    for seed in range(2):
        for size, gain in ((10, 0.1), (20, 0.3)):
            for value in (0.5, 0.99):
                accuracy = 0.4 + 0.1 * seed + (gain + 0.1 * seed if value == 0.99 else 0.0)
                name = f"{seed}-{size}-{value}"
                trials.append(energy(name, value, seed, average_accuracy=accuracy, pool__size=size))
    found = axis_contrast(trials, [AXIS, "pool.size"], "average_accuracy", axis=AXIS, high=0.99, low=0.5)
    assert found.n == 2  # seeds, not the four pairs
    assert found.mean == pytest.approx(0.25)  # 0.2 and 0.3


def test_holm_by_hand() -> None:
    corrected = holm([0.01, None, 0.04, 0.03])
    assert corrected[1] is None
    assert [corrected[0], corrected[2], corrected[3]] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_seed_must_have_every_order_of_the_sweep() -> None:
    """A setting that failed under the hard order of every seed has no mean; it is not averaged over the easy one."""
    design = Design("fixed", ("easy", "hard"))
    trials = [energy(f"a{s}", 0.5, s, order="easy", average_accuracy=0.6) for s in range(3)]
    trials += [energy(f"h{s}", 0.5, s, order="hard", status="FAILED") for s in range(3)]
    for s in range(3):
        for order, value in (("easy", 0.65), ("hard", 0.3)):
            row = energy(f"b{s}{order}", 0.99, s, order=order, average_accuracy=value)
            trials.append(row | {"validation/average_accuracy": value})
    for row in trials[:3]:
        row["validation/average_accuracy"] = 0.6
    first, second = settings_summary(trials, [AXIS], design)
    assert first.metric("average_accuracy").mean is None
    assert second.metric("average_accuracy").mean == pytest.approx(0.475)
    best = best_setting(trials, [AXIS], design)
    assert best is not None
    assert best.setting.value(AXIS) == 0.99


def test_round_off_is_no_variation() -> None:
    """0.3 - 0.2, 0.4 - 0.3 and 0.5 - 0.4 are the same number."""
    found = estimate_units({(0, "a"): 0.3 - 0.2, (1, "a"): 0.4 - 0.3, (2, "a"): 0.5 - 0.4})
    assert (found.half_width, found.p) == (0.0, None)


def test_everything_compared_is_one_family() -> None:
    """Differences 0.99 minus 0.5 are 0.1, 0.2, 0.3, minus sequential 0.1, 0.2, 0.3 and 0.2, 0.4, 0.6: one t for all."""
    found = compare(paired_trials(), [AXIS], metrics=["average_accuracy"])
    (contrast,), pair = found.contrasts, found.with_sequential
    assert (contrast.axis, contrast.high, contrast.low) == (AXIS, 0.99, 0.5)
    assert contrast.difference.mean == pytest.approx(0.2)
    assert [c.setting.value(AXIS) for c in pair] == [0.5, 0.99]
    assert [c.difference.mean for c in pair] == pytest.approx([0.2, 0.4])
    assert {round(c.difference.p or 0, 6) for c in (contrast, *pair)} == {0.07418}
    assert [c.p_holm for c in (contrast, *pair)] == pytest.approx([3 * 0.0741799] * 3, rel=1e-5)
    without = compare([row for row in paired_trials() if row["method"] != "sequential"], [AXIS])
    assert without.with_sequential == []
    assert without.contrasts


def test_a_null_that_reaches_the_references_is_a_value() -> None:
    """With clipping everything is 0.1 better than its own reference, without it 0.1 worse."""
    trials = []
    for seed in range(3):
        for clip, level, gain in ((None, 0.2, -0.1), (1.0, 0.6, 0.1)):
            for method, value in (("fwd_prompt", level + gain), ("sequential", level), ("zero_shot", 0.0)):
                row = trial(f"{method}{seed}{clip}", method, seed, average_accuracy=value)
                trials.append(row | {"train.clip": None if method == "zero_shot" else clip})
    settings = [summary.setting for summary in settings_summary(trials, ["train.clip"])]
    assert Setting("sequential", (("train.clip", None),)) in settings
    assert Setting("zero_shot") in settings
    found = compare(trials, ["train.clip"], metrics=["average_accuracy"]).with_sequential
    means = {c.setting.value("train.clip"): c.difference.mean for c in found}
    assert means == {None: pytest.approx(-0.1), 1.0: pytest.approx(0.1)}


def test_a_reference_in_which_the_order_plays_no_part_has_seeds_alone() -> None:
    rows = [
        trial(f"{s}{o}", "multitask", s, o, average_accuracy=0.5 + 0.1 * s) for s in range(3) for o in ("a>b", "b>a")
    ]
    (summary,) = settings_summary(rows, [], Design("random"))
    found = summary.metric("average_accuracy")
    assert (found.n, found.drawn) == (3, 0)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)


def test_baseline_shares_the_axes_that_apply_to_it() -> None:
    settings = [Setting("sequential", (("pool.size", size),)) for size in (10, 20)]
    mine = Setting("fwd_prompt", ((AXIS, 0.5), ("pool.size", 20)))
    assert baseline_of(mine, settings) == settings[1]
    assert baseline_of(mine, [Setting("sequential")]) == Setting("sequential")
    assert baseline_of(mine, [Setting("direct")]) is None


def test_summary_groups_settings_and_counts() -> None:
    trials = paired_trials()
    trials[0]["status"] = "FAILED"
    summaries = settings_summary(trials, [AXIS])
    assert [s.setting for s in summaries] == [
        Setting("fwd_prompt", ((AXIS, 0.5),)),
        Setting("fwd_prompt", ((AXIS, 0.99),)),
        Setting("sequential"),
    ]
    assert (summaries[0].trials, summaries[0].finished) == (3, 2)
    assert summaries[0].metric("average_accuracy").mean == pytest.approx(0.45)
    assert summaries[1].metric("average_accuracy").spread == pytest.approx(0.2)
    assert summaries[0].metric("forgetting").n == 0


@pytest.mark.parametrize("axes", [["order"], ["order", AXIS]])
def test_orders_are_repetitions_of_a_setting(axes: list[str]) -> None:
    orders = ("a>b", "b>a")
    trials = [trial(f"{i}", order=order, average_accuracy=0.1 * i) for i, order in enumerate(orders)]
    trials += [trial(f"s{i}", "sequential", order=order, average_accuracy=0.3 * i) for i, order in enumerate(orders)]
    summaries = settings_summary(trials, axes)
    # one seed, which counts with its mean over both
    assert [summary.metric("average_accuracy").values for summary in summaries] == [(0.05,), (0.15,)]
    studied, plain = (summary.setting for summary in summaries)
    found = paired_difference(trials, "average_accuracy", studied, plain)
    assert (found.mean, found.n) == (pytest.approx(-0.1), 1)


def competing(figures: dict[float, list[float | None]]) -> dict[object, float | None]:
    """Axis value -> the mean that it competes with, of validation figures over seeds, None for a trial that failed."""
    trials = [
        energy(f"{value}-{seed}", value, seed, status="FINISHED" if figure is not None else "FAILED")
        | {"validation/average_accuracy": figure}
        for value, over_seeds in figures.items()
        for seed, figure in enumerate(over_seeds)
    ]
    return {found.setting.value(AXIS): found.metric(VALIDATION).mean for found in candidates(trials, [AXIS])}


def test_no_setting_is_chosen_because_its_hard_seed_failed() -> None:
    assert competing({0.5: [0.6, 0.2], 0.99: [0.5, None]}) == {0.5: pytest.approx(0.4)}
    # one that has hardly begun decides nothing for the others
    assert competing({0.5: [0.2, 0.6], 0.9: [0.3, 0.4], 0.99: [0.1, None]}) == {0.5: 0.4, 0.9: pytest.approx(0.35)}
    # as many, not of the same seeds: on those that all have
    assert competing({0.5: [0.2, 0.6, None], 0.99: [None, 0.5, 0.5]}) == {0.5: 0.6, 0.99: 0.5}
    assert competing({0.5: [0.2, None], 0.99: [None, 0.5]}) == {0.5: 0.2, 0.99: 0.5}


def test_best_setting_looks_at_validation_alone() -> None:
    trials = [
        energy("a", 0.5, 0, average_accuracy=0.9) | {"validation/average_accuracy": 0.4},
        energy("b", 0.99, 0, average_accuracy=0.1) | {"validation/average_accuracy": 0.6},
        trial("s", "sequential") | {"validation/average_accuracy": 0.99},
    ]
    best = best_setting(trials, [AXIS])
    assert best is not None
    assert best.setting.value(AXIS) == 0.99
    assert best_setting([], [AXIS]) is None
    assert best_setting([trials[2]], [AXIS]) is None


def test_accuracy_matrix_and_mean() -> None:
    row, other = trial("a", order="x>y"), trial("b", seed=1, order="x>y")
    accuracy = [*cells(row, [[0.8, 0.2], [0.6, 0.7]], [0.1, 0.2]), *cells(other, [[0.6, None], [0.2, 0.5]])]
    stages = stage_results(accuracy, [])
    first, second = (accuracy_matrix(stages[name], ["x", "y"]) for name in "ab")
    assert first.tasks == ["x", "y"]
    assert first.values == [[0.8, 0.2], [0.6, 0.7]]
    assert first.untouched == [0.1, 0.2]
    assert second.values[0] == [0.6, None]
    mean = mean_matrix([first, second])
    assert mean.values[0] == pytest.approx([0.7, 0.2])
    assert mean.untouched == pytest.approx([0.1, 0.2])
    assert accuracy_matrix([], ["x", "y"]).tasks == []
    with pytest.raises(ValueError, match="different orders"):
        mean_matrix([first, accuracy_matrix(stages["a"], ["y", "x"])])


def test_metric_names_leave_out_axes_and_text() -> None:
    row = trial("a", pool__size=10, projection__mode="both")
    assert metric_names([row], [AXIS, "pool.size", "projection.mode"]) == [*MEASURES]


def test_numbers_are_printed_with_a_true_minus() -> None:
    assert format_number("forgetting", -0.0123) == "−1.2"
    assert format_number("forgetting", 0.0123, signed=True) == "+1.2"
    assert format_number("forgetting", -1e-9, signed=True) == "0.0"
    assert format_number("trained_parameters", 12345) == "12,345"
    assert format_number("forgetting", None) == "–"


def test_printed_summary(tmp_path: Path) -> None:
    trials = paired_trials()
    trials[0] |= {"status": "FAILED", "error": "ValueError: [bold]broken[/bold]\nsecond line", "average_accuracy": None}
    run = write_run(tmp_path / "printed", trials)
    text = io.StringIO()
    print_summary(run, Console(file=text, width=160))
    shown = text.getvalue()
    assert "45.0 (40.0, 50.0)" in shown  # two seeds allow no interval
    assert "60.0 ± 49.7" in shown
    assert "task_energy 0.99 instead of 0.5, average accuracy changed by +25.0 points (2 seeds" in " ".join(
        shown.split()
    )
    assert "would tell 25.0 points apart" in " ".join(shown.split())
    assert "2/3" in shown
    assert "ValueError: [bold]broken[/bold]" in shown
    assert "second line" not in shown


def test_empty_run_is_read_and_printed(tmp_path: Path) -> None:
    results = read_results(tmp_path)
    assert (results.trials, results.axes, results.orders) == ([], {}, [])
    print_summary(tmp_path, Console(file=io.StringIO()))


def test_errors_in_one_line() -> None:
    assert first_line("\nValueError: a\nb") == "ValueError: a"
    assert first_line("Traceback (most recent call last):\n  File x\nValueError: a\n") == "ValueError: a"
    assert first_line(None) == ""


def method_rows() -> list[Row]:
    """Two methods on differently sized pools and one on LoRA, each with its own references."""
    pool = {"tuner": "prompt_pool", "tuner_settings": None}
    large, lora = {**pool, "tuner_settings": "size 60"}, {**pool, "tuner": "lora"}
    rows = [
        trial(f"{method}{number}", method, **kind)
        for number, kind in enumerate((pool, large, lora))
        for method in ("direct", "sequential")
    ]
    protected = {"fwd_prompt": pool, "freeze": large, "llaca": lora, "o_lora": {**pool, "tuner": "o_lora"}}
    return rows + [trial(name, name, **kind) for name, kind in protected.items()]


def test_references_of_one_tuner_with_other_settings_are_told_apart() -> None:
    found = [summary.setting for summary in settings_summary(method_rows(), ["method"])]
    assert len(found) == 10
    direct = [s for s in found if s.method == "direct"]
    assert [dict(s.values)["tuner_settings"] for s in direct].count("size 60") == 1
    baseline = {s.method: baseline_of(s, found) for s in found if not s.is_reference}
    wanted = {"fwd_prompt": "sequential0", "freeze": "sequential1", "llaca": "sequential2", "o_lora": "sequential2"}
    for method, name in wanted.items():
        chosen = baseline[method]
        assert chosen is not None
        assert [row["trial"] for row in method_rows() if chosen.matches(row)] == [name]
    labels = [setting_label(s, {"method": None}) for s in found]
    assert "freeze (prompt_pool, size 60)" in labels
    assert "direct (lora)" in labels


def test_an_axis_that_a_method_does_not_read_is_not_in_its_name() -> None:
    axes: dict[str, list[JsonValue] | None] = {"averaging.weight": [0.9, 0.99], "train.clip": [None, 1.0]}
    setting = Setting("ema_taylor", (("averaging.weight", None), ("train.clip", None)))
    assert setting_label(setting, axes) == "ema_taylor, clip null"
    assert setting_label(Setting("direct", (("averaging.weight", None),)), axes) == "direct"


def test_the_table_of_orders_by_hand(tmp_path: Path) -> None:
    """Two orders of two seeds: 0.3 and 0.5 of one, 0.6 and 0.6 of the other; `sequential` at 0.5 in both."""
    other = ">".join(reversed(ORDER.split(">")))
    trials = [
        energy(f"{order[:1]}{seed}", 0.5, seed, order=order, average_accuracy=value)
        for order, values in ((ORDER, (0.3, 0.5)), (other, (0.6, 0.6)))
        for seed, value in enumerate(values)
    ]
    trials += [
        trial(f"s{order[:1]}{seed}", "sequential", seed, order=order, average_accuracy=0.5)
        for order in (ORDER, other)
        for seed in range(2)
    ]
    run = write_run(tmp_path / "run", trials)
    lines = example("markdown").table("orders", run, ["average_accuracy"]).splitlines()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1].strip("| ") for line in lines[2:]}
    (own,) = [row for name, row in rows.items() if name.endswith("0.5`")]
    (gain,) = [row for name, row in rows.items() if name.endswith("minus `sequential`")]
    assert own == "50.0, s.d. 14.1, 40.0 to 60.0"
    assert gain == "0.0, s.d. 14.1, −10.0 to +10.0; higher in 1 of 2"
    assert "50.0, s.d. 0.0, 50.0 to 50.0" in rows.values()


def test_two_runs_are_set_side_by_side(tmp_path: Path) -> None:
    def run(name: str, change: float) -> Path:
        trials = [
            trial(f"{method}{seed}", method, seed, tuner="lora", average_accuracy=0.5 + 0.1 * seed + change * seed)
            for method in ("er", "ewc")
            for seed in range(3)
        ]
        return write_run(tmp_path / name, trials[: None if name == "one" else 5])

    er, ewc = example("two_runs").table(run("one", 0.0), run("other", 0.02)).splitlines()[2:]
    assert "| 3 | 2.0 | 4.0 | +2.0 [" in er  # 0, 2 and 4 points apart
    assert "| 10.0 |" in er  # seeds that are ten points apart
    assert "| 2 | 1.0 | 2.0 |" in ewc  # a trial that one of them does not have is left out
