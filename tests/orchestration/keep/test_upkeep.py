"""`python -m orchestration.store`: list, verify, explain, gc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcit_core.methods import build_experiment
from mcit_core.stages.keys import StageKey, stage_chain
from orchestration import store as command
from orchestration.keep.stage_store import StageStore
from tests.support.storing import evaluation, trained

SETTINGS = {"pool.size": 6, "pool.top_k": 2, "train.steps": 3}


def sweep_store(tmp_path: Path) -> tuple[StageStore, dict[str, list[StageKey]]]:
    """A store with the stages of sequences under two orders and two pool sizes, and the sweep file of the first."""
    store = StageStore(tmp_path / "stages")
    chains: dict[str, list[StageKey]] = {}
    for name, order, size in (
        ("ab", "attribute ground", 6),
        ("ba", "ground attribute", 6),
        ("big", "attribute ground", 8),
    ):
        settings = {**SETTINGS, "pool.size": size}
        experiment = build_experiment("mini", "mini", "fwd_prompt", tuple(order.split()), 0, settings)
        common = {"code": {"mcit_core.training.step": "c" * 32}, "libraries": {"torch": "2"}}
        chains[name] = stage_chain(experiment, common, dict.fromkeys(order.split(), "d" * 64))
        for key in chains[name]:
            store.stage(key, trained)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "sweep.yaml").write_text(
        "{name: ab, benchmark: mini, tasks: [attribute, ground], model: mini, method: fwd_prompt,"
        " base: {pool.size: 6, pool.top_k: 2, train.steps: 3}}"
    )
    return store, chains


def upkeep_said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = command.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_explain_says_why_stages_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, chains = sweep_store(tmp_path)
    storage = ("--storage", str(tmp_path))
    first, second = chains["ab"]
    code, said = upkeep_said(capsys, "explain", first.key[:10], chains["big"][0].key[:10], *storage)
    assert code == 0
    assert said.splitlines() == ["the stages differ in pool.size: 6 against 8"]
    _, said = upkeep_said(capsys, "explain", second.key[:10], chains["big"][1].key, *storage)
    assert said.count("pool.size: 6 against 8") == 2
    assert "the stages before" in said
    _, said = upkeep_said(capsys, "explain", first.key, second.key, *storage)
    assert "the task: attribute against ground" in said
    assert f"the first starts from the pre-trained model, the other from stage {first.key[:12]}" in said
    common = {
        "code": {"mcit_core.training.step": "e" * 32},
        "libraries": {"torch": "3", "peft": "1"},
        "numerics": {"cpu": "AVX512"},
    }
    other = stage_chain(build_experiment("mini", "mini", "fwd_prompt", ("attribute",), 0, SETTINGS), common, {})[0]
    StageStore(tmp_path / "stages").stage(other, trained)
    _, said = upkeep_said(capsys, "explain", first.key, other.key, *storage)
    assert "the source of mcit_core.training.step: cccccccccccc against eeeeeeeeeeee" in said
    assert "the version of torch: 2 against 3" in said
    assert "the version of peft: not used against 1" in said
    assert "how the machine calculates (cpu): not used against AVX512" in said
    assert upkeep_said(capsys, "explain", first.key, first.key, *storage)[1] == "they are one and the same stage\n"
    code, said = upkeep_said(capsys, "explain", "zzz", first.key, *storage)
    assert code == 2
    assert "'zzz'" in said


def test_list_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, chains = sweep_store(tmp_path)
    storage = ("--storage", str(tmp_path))
    code, said = upkeep_said(capsys, "list", *storage)
    assert code == 0
    assert all(key.key[:12] in said for chain in chains.values() for key in chain)
    assert "6 stages" in said
    lines = {line[:12]: " ".join(line.split()) for line in said.splitlines()}
    for name, told in (
        ("ab", "ab fwd_prompt 0"),
        ("ba", "- (tuner prompt_pool) 0"),
        ("big", "- (tuner prompt_pool) 0"),
    ):
        for key in chains[name]:
            assert lines[key.key[:12]].endswith(told), lines[key.key[:12]]
    assert upkeep_said(capsys, "verify", *storage)[0] == 0
    store.folder.write(f"{chains['ab'][0].key[:2]}/{chains['ab'][0].key}/state.safetensors", b"torn")
    code, said = upkeep_said(capsys, "verify", *storage)
    assert code == 1
    assert "6 stages and 0 evaluations read, 1 damaged" in said
    assert upkeep_said(capsys, "verify", *storage)[0] == 0
    assert upkeep_said(capsys, "list", "--storage", str(tmp_path / "no"))[0] == 2


def test_list_says_which_settings_share_a_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A first stage does not depend on what protects it; sweeps that cannot be read are named."""
    sweep_store(tmp_path)
    text = (tmp_path / "ab" / "sweep.yaml").read_text()
    axes = ", axes: {projection.task_energy: [0.5, 0.9, 0.99]}}"
    (tmp_path / "ab" / "sweep.yaml").write_text(text[:-1].rstrip() + axes)
    for name, content in (("broken", "{"), ("theirs", "imported: []")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.yaml").write_text(content)
    code, said = upkeep_said(capsys, "list", "--storage", str(tmp_path))
    assert code == 0
    assert "not read: broken;" in said
    (line,) = [line for line in said.splitlines() if "task_energy" in line and " attribute " in line]
    assert "projection.task_energy 0.5 | projection.task_energy 0.9 | and 1 more" in line


def test_gc_spares_what_a_run_needs_and_what_is_leased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, chains = sweep_store(tmp_path)
    storage = ("--storage", str(tmp_path))
    keep = ("--keep", str(tmp_path / "ab"))
    before = set(store.entries())
    code, said = upkeep_said(capsys, "gc", *keep, "--dry-run", *storage)
    assert code == 0
    assert "4 stages" in said
    assert set(store.entries()) == before
    lease = store.leases.attempt("f" * 64, chains["big"][1].key)  # a third stage after `big` is being trained
    assert lease
    upkeep_said(capsys, "gc", *keep, *storage)
    assert set(store.entries()) == {key.key for name in ("ab", "big") for key in chains[name]}
    lease.release()
    upkeep_said(capsys, "gc", *keep, *storage)
    assert set(store.entries()) == {key.key for key in chains["ab"]}


def test_gc_deletes_the_longest_unused_first_and_children_before_parents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, chains = sweep_store(tmp_path)
    for when, name in ((100, "ba"), (200, "ab"), (300, "big")):
        for key in chains[name]:
            for file in (tmp_path / "stages" / key.key[:2] / key.key).iterdir():
                os.utime(file, (when, when))
    store.get_stage(chains["ba"][0].key)  # used just now
    size = sum(entry.size for files in store.entries().values() for entry in files) // 6
    upkeep_said(capsys, "gc", "--max-size", str(5 * size + 100), "--storage", str(tmp_path))
    assert chains["ba"][1].key not in store.entries()
    assert len(store.entries()) == 5
    upkeep_said(capsys, "gc", "--max-size", str(4 * size + 100), "--storage", str(tmp_path))
    assert chains["ab"][1].key not in store.entries()
    assert chains["ab"][0].key in store.entries()
    with pytest.raises(SystemExit):
        command.main(["gc", "--storage", str(tmp_path)])


def test_evaluations_go_with_their_stage_and_others_in_their_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, chains = sweep_store(tmp_path)
    storage = ("--storage", str(tmp_path))
    kept, gone = chains["ab"][0].key, chains["big"][0].key
    for key in (kept, gone):
        store.put_evaluation("e" * 64, evaluation(), key)
    store.put_evaluation("a" * 64, evaluation())  # of the untouched model, used today
    store.put_evaluation("b" * 64, evaluation())
    flat = tmp_path / "stages" / "evaluations" / f"{'c' * 64}.json"  # where an earlier version kept them
    flat.write_bytes((tmp_path / "stages" / "evaluations" / "aa" / f"{'a' * 64}.json").read_bytes())
    os.utime(flat, (100, 100))
    os.utime(tmp_path / "stages" / "evaluations" / "bb" / f"{'b' * 64}.json", (100, 100))
    assert StageStore(tmp_path / "stages").get_evaluation("c" * 64, kept) == evaluation()  # which notes its use
    assert "6 stages and 5 evaluations read, 0 damaged" in upkeep_said(capsys, "verify", *storage)[1]
    os.utime(flat, (100, 100))
    os.utime(tmp_path / "stages" / "evaluations" / "bb" / f"{'b' * 64}.json", (100, 100))
    upkeep_said(capsys, "gc", "--keep", str(tmp_path / "ab"), *storage)
    # what is kept may need those that lie by no stage
    loose = {(letter * 64, None) for letter in "abc"}
    assert {(key, stage) for key, stage, _ in store.evaluations()} == {("e" * 64, kept), *loose}
    size = sum(entry.size for entry in store.folder.files())
    upkeep_said(capsys, "gc", "--max-size", str(size - 1), *storage)
    left = {(key, stage) for key, stage, _ in store.evaluations()}
    assert len(left) == 3
    assert ("a" * 64, None) in left
    upkeep_said(capsys, "gc", "--max-size", "0", *storage)
    assert store.folder.files() == []
