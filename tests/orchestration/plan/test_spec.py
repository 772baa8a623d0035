"""Broken sweep files are refused at once, each with file, line, key and remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mcit_core.methods import build_experiment
from mcit_core.stages.keys import stage_chain
from mcit_core.yaml_document import SpecError
from orchestration.plan.stage_tree import costs
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import known_trials, make_trials, tuner_settings
from tests.support.places import ROOT
from tests.support.refusals import assert_names_place

GOOD = """\
name: good
benchmark: mini
tasks: [attribute, ground, bars]
model: mini
method: fwd_prompt
base: {train.steps: 5}
axes:
  projection.task_energy: [0.5, 0.99]
seeds: [0, 1]
references: [zero_shot, direct, sequential]
"""

#: name -> (text to replace, replacement, line, fragments of the message)
BROKEN = {
    "wrong_type": ("train.steps: 5", "train.steps: many", 6, ["train.steps", "expected a valid integer", "'many'"]),
    "leading_zero": ("train.steps: 5", "train.steps: 010", 6, ["010", "one number or another"]),
    "underscore": ("train.steps: 5", "train.steps: 1_000", 6, ["1_000", "one number or another"]),
    "sexagesimal": ("[0, 1]", "[0, 1:30]", 9, ["1:30", "one number or another"]),
    "no_is_text": ("train.steps: 5", "averaging.kind: no", 6, ["averaging.kind", "'no'"]),
    "long_name": ("name: good", f"name: {'x' * 101}", 1, ["name", "at most 100 characters, got 101"]),
    "name_of_sqlite": ("name: good", "name: mlflow.db-wal", 1, ["'mlflow.db-wal'", "choose another"]),
    "order_kinds": (
        "  projection.task_energy: [0.5, 0.99]",
        "  order: {kind: [reverse, all]}",
        8,
        ["expected a list of orders"],
    ),
    "unknown_top_key": ("seeds: [0, 1]", "seed: [0, 1]", 9, ["unknown key", "did you mean 'seeds'"]),
    "unknown_base_key": ("train.steps", "train.stpes", 6, ["train.stpes", "did you mean 'train.steps'"]),
    "unknown_axis": ("projection.task_energy", "projection.task_enrgy", 8, ["did you mean 'projection.task_energy'"]),
    "misspelt_task": ("attribute", "atribute", 3, ["'atribute'", "did you mean 'attribute'"]),
    "misspelt_method": ("fwd_prompt", "fwd_promt", 5, ["did you mean 'fwd_prompt'"]),
    "misspelt_model": ("model: mini", "model: mimi", 4, ["did you mean 'mini'"]),
    "misspelt_benchmark": ("benchmark: mini", "benchmark: minni", 2, ["did you mean 'mini'"]),
    "misspelt_reference": ("direct,", "derect,", 10, ["did you mean 'direct'"]),
    "empty_axis": ("[0.5, 0.99]", "[]", 8, ["at least one value"]),
    "axis_no_list": ("[0.5, 0.99]", "0.5", 8, ["expected a list"]),
    "axis_twice_same": ("[0.5, 0.99]", "[0.5, 0.5]", 8, ["0.5 stands twice"]),
    "duplicate_seed": ("[0, 1]", "[1, 1]", 9, ["seeds", "1 stands twice"]),
    "negative_seed": ("[0, 1]", "[-1]", 9, ["seeds", "whole number from 0"]),
    "threshold_above_one": ("0.99]", "1.5]", 8, ["less than or equal to 1", "1.5"]),
    "threshold_zero": ("0.99]", "0]", 8, ["greater than 0"]),
    "order_missing_task": (
        "  projection.task_energy: [0.5, 0.99]",
        "  order: [[attribute, ground]]",
        8,
        ["bars missing"],
    ),
    "order_unknown_task": (
        "  projection.task_energy: [0.5, 0.99]",
        "  order: [[attribute, ground, bras]]",
        8,
        ["did you mean 'bars'"],
    ),
    "order_bad_kind": (
        "  projection.task_energy: [0.5, 0.99]",
        "  order: {kind: latin_sqare}",
        8,
        ["did you mean 'latin_square'"],
    ),
    "order_too_many": ("  projection.task_energy: [0.5, 0.99]", "  order: {kind: sample, n: 7}", 8, ["only 6 orders"]),
    "top_k_above_pool": ("train.steps: 5", "pool.size: 3, pool.top_k: 4", 6, ["pool.top_k is 4", "only 3 prompts"]),
    "too_many_tasks": ("[attribute, ground, bars]", "99", 3, ["from 1 to 8"]),
    "key_twice": ("seeds: [0, 1]", "seeds: [0]\nseeds: [1]", 10, ["stands twice"]),
    "swept_and_set": ("train.steps: 5", "projection.task_energy: 0.5", 8, ["also set in base"]),
    "bad_name": ("name: good", "name: ../evil", 1, ["names a folder"]),
    "no_method": ("method: fwd_prompt\n", "", 1, ["method", "missing"]),
    "no_workers": (
        "seeds: [0, 1]",
        "seeds: [0]\nresources: {workers: 0}",
        10,
        ["resources.workers", "greater than or equal to 1"],
    ),
    "no_process": (
        "seeds: [0, 1]",
        "seeds: [0]\nresources: {processes: 0}",
        10,
        ["resources.processes", "greater than or equal to 1"],
    ),
    "more_processes_than_rows": (
        "seeds: [0, 1]",
        "seeds: [0]\nresources: {processes: 33}",
        10,
        ["resources.processes", "in each of 33 processes is more than batch_size 32"],
    ),
    "processes_elsewhere": (
        "train.steps: 5",
        "train.processes: 2",
        6,
        ["train.processes", "set by resources.processes"],
    ),
    "processes_as_an_axis": (
        "projection.task_energy: [0.5, 0.99]",
        "train.processes: [2]",
        8,
        ["train.processes", "set by resources.processes"],
    ),
    "unknown_resource": ("seeds: [0, 1]", "seeds: [0]\nresources: {gpu: 1}", 10, ["did you mean 'gpus'"]),
    "search": ("seeds: [0, 1]", "seeds: [0]\nsearch: bayes", 10, ["expected one of grid, optuna, random, sobol"]),
    "halving_text": ("seeds: [0, 1]", "seeds: [0]\nhalving: half", 10, ["halving", "min_stages", "'half'"]),
    "halving_key": ("seeds: [0, 1]", "seeds: [0]\nhalving: {min_stage: 1}", 10, ["did you mean 'min_stages'"]),
    "halving_by_one": ("seeds: [0, 1]", "seeds: [0]\nhalving: {reduction: 1}", 10, ["greater than or equal to 2"]),
    "halving_too_late": (
        "seeds: [0, 1]",
        "seeds: [0]\nhalving: {min_stages: 3}",
        10,
        ["less than the number of tasks"],
    ),
    "halving_nothing": ("[0.5, 0.99]", "[0.5]\nhalving: {min_stages: 1}", 9, ["no settings to choose from"]),
    "not_yaml": ("[0, 1]", "[0, 1", 10, ["not YAML"]),
    "list_at_top": (GOOD, "- a\n- b\n", 1, ["expected a mapping", "got list"]),
    "key_no_text": ("train.steps: 5", "pool: {1: 2}", 6, ["'1'", "type int", "quote it"]),
    "top_key_no_text": ("seeds: [0, 1]", "true: [0, 1]", 9, ["'true'", "type bool", "quote it"]),
    "axis_key_no_text": ("projection.task_energy", "1.5", 8, ["'1.5'", "type float"]),
    "recursive_anchor": ("base: {train.steps: 5}", "base: &a {pool: *a}", 6, ["contains itself"]),
    "huge_seed": ("[0, 1]", f"[{2**63}]", 9, ["seeds", "2**63 - 1", str(2**63)]),
    "two_spellings": ("train.steps: 5", "pool.size: 8, pool: {size: 9}", 6, ["pool.size", "dotted and nested"]),
    "infinite_lr": ("train.steps: 5", "train.lr: .inf", 6, ["train.lr", "finite number", "got inf"]),
    "lr_not_a_number": ("train.steps: 5", "train.lr: .nan", 6, ["train.lr", "got nan"]),
    "model_without_kind": ("model: mini", "model: {path: a}", 4, ["name of a model", "kind: NAME"]),
    "model_of_unknown_kind": ("model: mini", "model: {kind: mimi}", 4, ["model.kind", "did you mean 'mini'"]),
    "model_setting": ("model: mini", "model: {kind: mini, pth: a}", 4, ["model.pth", "did you mean 'path'"]),
    "benchmark_setting": (
        "benchmark: mini",
        "benchmark: {kind: mini, train_rows: 0}",
        2,
        ["benchmark.train_rows", "greater than or equal to 1", "got 0"],
    ),
    "axis_of_a_part": (
        "  projection.task_energy: [0.5, 0.99]",
        "  benchmark.trian_rows: [5, 6]",
        8,
        ["no setting 'trian_rows'", "did you mean 'train_rows'"],
    ),
    "nothing_reads_it": ("train.steps: 5", "lora.rank: 4", 6, ["lora", "no lora"]),
    "no_protection_reads_it": (
        "train.steps: 5",
        "averaging.weight: 0.5",
        6,
        ["averaging.weight", "nothing here reads"],
    ),
    "no_kind_reads_it": (
        "train.steps: 5",
        "projection.samples: 5",
        6,
        ["projection.samples", "projection.task_energy"],
    ),
    "reuse_shares": (
        "train.steps: 5",
        "pool.reuse: share, pool.reuse_penalty: 0.5",
        6,
        ["pool.reuse_penalty", "nothing here reads it"],
    ),
    "axis_that_nothing_reads": (
        "  projection.task_energy: [0.5, 0.99]",
        "  replay.rows: [5, 9]",
        8,
        ["replay.rows", "nothing here reads it"],
    ),
    "enabled_by_number": ("train.steps: 5", "grouping.enabled: 1", 6, ["grouping.enabled", "one of false, true"]),
    "section_is_no_mapping": ("train.steps: 5", "projection: both", 6, ["projection", "unknown key"]),
    "part_chosen_by_axis": ("projection.task_energy: [0.5, 0.99]", "benchmark.kind: [mini]", 8, ["is no axis"]),
    "empty": (GOOD, "", 1, ["is empty"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_name_file_line_key_and_remedy(name: str, tmp_path: Path) -> None:
    old, new, line, fragments = BROKEN[name]
    assert old in GOOD
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SpecError) as refused:
        load_spec(path)
    assert_names_place(str(refused.value), path, line, fragments)


@pytest.mark.parametrize("name", ["stages", "Features", "mlartifacts", "mlflow.db", "evaluations", "leases"])
def test_names_of_the_storage_itself_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace("name: good", f"name: {name}"))
    with pytest.raises(SpecError, match=r":1: name: .* the storage folder uses itself"):
        load_spec(path)


def test_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = tmp_path / "sweep.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(SpecError, match="more than 100,000 values"):
        load_spec(path)


@pytest.mark.parametrize("assignment", ["base={1: 2}", "base=&a {x: *a}", "axes={train.steps: {2: 1}}"])
def test_set_takes_no_odd_keys_either(assignment: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD)
    with pytest.raises(SpecError, match=r"--set .*(quote it|contains itself)"):
        load_spec(path, [assignment])


def test_what_is_no_sweep_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01" * 20)
    (tmp_path / "good.yaml").write_text(GOOD)
    for path, fragment in (
        (tmp_path, "is a directory"),
        (tmp_path / "binary.yaml", "not text"),
        (tmp_path / "god.yaml", "no such file"),
    ):
        with pytest.raises(SpecError, match=fragment):
            load_spec(path)
    with pytest.raises(SpecError, match="did you mean"):
        load_spec(tmp_path / "god.yaml")


def test_the_command_refuses_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace("0.99]", "1.5]"))
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.sweep", str(path), "--storage", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{path}:8: axes.projection.task_energy" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD)
    spec = load_spec(path, ["train.steps=20", "seeds=[3]", "axes.projection.task_energy=[0.7]", "tasks=2"])
    assert spec.base["train.steps"] == 20
    assert spec.seeds == (3,)
    assert spec.axes["projection.task_energy"] == [0.7]
    assert spec.tasks == ("caption", "attribute")
    for assignment, fragment in (
        ("train.stpes=1", "did you mean 'train.steps'"),
        ("train.steps", "expected KEY=VALUE"),
        ("train.steps=x", "expected a valid integer"),
        ("projection.task_energy=0.5", "swept by this file"),
        ("search.trials=3", "grid has no setting 'trials'"),
        ("robust.statistic=wrost", "expected 'mean', 'worst' or 'cvar'"),
    ):
        with pytest.raises(SpecError, match=fragment):
            load_spec(path, [assignment])


def test_a_part_of_a_search_is_overridden(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace("[0.5, 0.99]", "{low: 0.5, high: 0.99}") + "search: {kind: random, trials: 9}\n")
    spec = load_spec(path, ["search.trials=20", "search.seed=3", "robust.statistic=worst"])
    assert spec.search == {"kind": "random", "trials": 20, "seed": 3}
    assert spec.robust is not None
    assert spec.robust.statistic == "worst"
    with pytest.raises(SpecError, match=r"--set search\.trils=20: .* did you mean 'trials'"):
        load_spec(path, ["search.trils=20"])


def test_a_resolved_spec_reads_back(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD + "resources: {workers: 2}\n")
    for axis, drawn in (("{kind: latin_square}", False), ("{kind: sample, n: 3}", True), ("all", False)):
        spec = load_spec(path, [f"axes.order={axis}"])
        assert spec.orders_drawn == drawn
        again = tmp_path / "again.yaml"
        again.write_text(yaml.safe_dump(resolved(spec)))
        assert load_spec(again) == spec


def test_processes_reach_every_trial_that_trains_and_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD)
    plain, one, two = (load_spec(path, [f"resources.processes={n}"] if n else []) for n in (0, 1, 2))
    assert make_trials(one) == make_trials(plain)
    assert {trial.experiment.train.processes for trial in make_trials(two) if trial.stages} == {2}
    same = {trial.id for trial in make_trials(two)} & {trial.id for trial in make_trials(one)}
    assert {name.partition("-")[0] for name in same} == {"zero_shot"}
    path.write_text(yaml.safe_dump(resolved(two)))
    assert make_trials(load_spec(path)) == make_trials(two)


def test_orders_and_shared_stages_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        GOOD.replace("method: fwd_prompt", "method: sequential")
        .replace("  projection.task_energy: [0.5, 0.99]", "  order: {kind: all}")
        .replace("references: [zero_shot, direct, sequential]", "")
        .replace("seeds: [0, 1]", "seeds: [0]")
    )
    trials = make_trials(load_spec(path))
    counted = costs(trials)
    # 6 orders of 3 tasks: 18 stages; distinct prefixes 3 + 6 + 6
    assert (counted.trials, counted.stages, len(counted.distinct)) == (6, 18, 15)


def test_references_stand_once_and_first(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD)
    trials = make_trials(load_spec(path))
    methods = [trial.method for trial in trials]
    # nothing is random in the untouched model, so it is there once
    assert methods == ["zero_shot"] + ["direct"] * 2 + ["sequential"] * 2 + ["fwd_prompt"] * 4
    assert all(trial.settings["projection.task_energy"] is None for trial in trials[:5])
    # the direct stage of the first task is the sequence's first stage, and both thresholds share theirs, where nothing
    # is claimed yet
    assert len(costs(trials).distinct) == 2 * (3 + 3 + 6 - 1 - 1)


def test_every_shipped_sweep_is_valid() -> None:
    folder = ROOT / "sweeps"
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "experiment.yaml"]
    assert files
    for path in files:
        assert known_trials(load_spec(path))


def test_a_reference_protects_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace("projection.task_energy: [0.5, 0.99]", "pool.reuse: [share, freeze]"))
    trials = make_trials(load_spec(path))
    references = [trial for trial in trials if trial.method != "fwd_prompt"]
    assert len(references) == 5  # one a seed each, zero_shot once, whatever is swept
    assert all(trial.experiment.pool.reuse == "share" for trial in references)
    assert all(trial.settings["pool.reuse"] is None for trial in references)
    assert all(trial.experiment.projection.mode == "none" for trial in references)


def test_what_a_tuner_has_other_than_its_defaults_in_words() -> None:
    settings = {"pool.size": 30, "pool.reuse": "freeze", "pool.top_k": 5}
    config = build_experiment("tiny", "mini", "fwd_prompt", ("attribute",), 0, settings)
    assert tuner_settings(config) == "size 30, top_k 5"
    assert tuner_settings(config, ["pool.size"]) == "top_k 5"
    assert tuner_settings(build_experiment("tiny", "mini", "llaca", ("attribute",))) is None


def test_a_setting_that_some_points_read_is_fine_and_the_others_do_without(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    text = GOOD.replace("train.steps: 5", "averaging.weight: 0.5, projection.pretrained_energy: 0.9")
    path.write_text(
        text.replace(
            "  projection.task_energy: [0.5, 0.99]",
            "  averaging.kind: [none, fixed]\n  projection.mode: [none, residual, both]\n"
            "  projection.task_energy: [0.5, 0.9]",
        )
    )
    trials = [trial for trial in make_trials(load_spec(path)) if trial.method == "fwd_prompt"]
    # with projection.mode none the two thresholds are one point
    assert len(trials) == 2 * 2 * (1 + 2 + 2)
    for trial in trials:
        averaging, projection = trial.experiment.averaging.model_dump(), trial.experiment.projection.model_dump()
        assert averaging.get("weight") == (0.5 if averaging["kind"] == "fixed" else None)
        assert projection.get("pretrained_energy") == (0.9 if projection["mode"] == "both" else None)
        assert (trial.settings["projection.task_energy"] is None) == (projection["mode"] == "none")


def test_settings_of_model_and_benchmark_are_in_the_experiment_and_may_be_axes(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        GOOD.replace("benchmark: mini", "benchmark: {kind: mini, test_rows: 40, validation_rows: 200}").replace(
            "projection.task_energy: [0.5, 0.99]", "benchmark.train_rows: [30, 1500]"
        )
    )
    spec = load_spec(path, ["model.path=elsewhere"])
    assert spec.benchmark == {"kind": "mini", "test_rows": 40}  # what is set to its default is not set
    trials = make_trials(spec)
    assert {str(trial.experiment.model) for trial in trials} == {"{'kind': 'mini', 'path': 'elsewhere'}"}
    choices = {trial.id: trial.experiment.benchmark for trial in trials}
    wanted = [{"kind": "mini", "test_rows": 40, "train_rows": 30}, {"kind": "mini", "test_rows": 40}]
    assert all(choice in wanted for choice in choices.values())
    references = [trial for trial in trials if trial.method == "zero_shot"]
    assert sorted(trial.settings["benchmark.train_rows"] for trial in references) == [30, 1500]
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(resolved(spec)))
    assert [trial.id for trial in make_trials(load_spec(again))] == [trial.id for trial in trials]


def refused(path: Path, text: str, *assignments: str) -> str:
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        load_spec(path, list(assignments))
    return str(error.value)


def test_a_setting_of_a_part_is_set_once(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    swept = GOOD.replace("projection.task_energy: [0.5, 0.99]", "benchmark.train_rows: [100, 300]")
    both = swept.replace("benchmark: mini", "benchmark: {kind: mini, train_rows: 200}")
    assert ":8: axes.benchmark.train_rows: is also set" in refused(path, both)
    assert "is swept by this file" in refused(path, swept, "benchmark.train_rows=7")


def test_options_are_set_whole_or_in_part(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    text = GOOD.replace("fwd_prompt", "moe_lora").replace("projection.task_energy: [0.5, 0.99]", "train.lr: [0.1, 0.2]")
    for both in ("options.experts: 4, options: {experts: {b: 2}}", "options: 3, options.experts: 4"):
        assert "set" in refused(path, text.replace("train.steps: 5", both))
    path.write_text(text)
    spec = load_spec(path, ["options.experts=2", "options.rank=4"])
    assert {trial.experiment.options["experts"] for trial in make_trials(spec) if trial.method == "moe_lora"} == {2}


def test_another_kind_does_not_inherit_what_the_preset_says_of_its_own() -> None:
    order = ("attribute", "ground")
    made = build_experiment("mini", "mini", "ewc", order, 0, {"regulariser.kind": "lwf"})
    assert made.regulariser.model_dump() == {"kind": "lwf", "strength": 1.0, "temperature": 2.0}
    made = build_experiment("mini", "mini", "ewc", order, 0, {"regulariser.kind": "ewc", "regulariser.samples": 3})
    assert made.regulariser.model_dump() == {"kind": "ewc", "strength": 1000.0, "samples": 3}


def test_two_kinds_are_two_keys_whatever_they_say_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcit_core.protection.averaging import Fixed, PerTensor

    for kind in (Fixed, PerTensor):
        monkeypatch.setattr(kind, "active", classmethod(lambda cls, experiment, settings, alone: {"same": 1}))
    order = ("attribute", "ground")
    made = [build_experiment("mini", "mini", name, order) for name in ("ema_fixed", "ema_per_tensor")]
    one, other = ([stage.key for stage in stage_chain(experiment, {}, {})] for experiment in made)
    assert one[1] != other[1]


def test_tasks_that_are_learned_alone_have_nothing_to_protect(tmp_path: Path) -> None:
    text = GOOD.replace("fwd_prompt", "direct").replace("train.steps: 5", "replay.kind: reservoir")
    text = text.replace("projection.task_energy: [0.5, 0.99]", "train.lr: [0.1, 0.2]")
    assert ":6: replay.kind: nothing here reads it" in refused(tmp_path / "sweep.yaml", text)
