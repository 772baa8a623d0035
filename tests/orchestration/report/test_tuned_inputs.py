"""Fwd-Prompt's figures on tuned inputs: contours on frozen axes, ranks in each state, what is told of the others."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence as Many
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mcit_core.data.workbench import Workbench
from mcit_core.stages.state import StageState
from mcit_core.training.evaluation import encode
from mcit_core.training.sequence import Sequence
from mcit_core.training.stage import build_tuner
from mcit_core.tuned_inputs import tuned_inputs
from mcit_core.tuners import Tuner
from orchestration.figures import main
from orchestration.keep.records import Records
from orchestration.keep.stage_store import StageStore
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from orchestration.report.tuned_inputs import Plane, contours
from orchestration.report.tuned_states import ALL_OF_THEM, METHODS, State, States, find_states
from tests.support.places import ROOT

TASKS = ("attribute", "ground")
POOL = "tuner: prompt_pool, train.lr: 0.03, pool.size: 4, pool.top_k: 2, pool.length: 3, "
SWEEP = """
name: {name}
benchmark: tiny
tasks: [attribute, ground]
model: tiny
base: {{{base}train.steps: 2, train.batch_size: 8, evaluation.rows: 4}}
{methods}
references: [{references}]
seeds: [3, 1]
"""


def make_run(storage: Path, bench: Workbench, features: Path, methods: str, references: str, base: str = POOL) -> Path:
    """A RUN and its stages, as a sweep makes them, without Ray; only trials of the first seed are finished."""
    run = storage / "told"
    run.mkdir(parents=True)
    (storage / "features").symlink_to(features)
    (run / "sweep.yaml").write_text(SWEEP.format(name=run.name, methods=methods, references=references, base=base))
    spec = load_spec(run / "sweep.yaml")
    records = Records(run, spec, make_trials(spec))
    store = StageStore(storage / "stages")
    for record in records.records.values():
        if record.trial.experiment.seed == 3 or record.trial.experiment.protocol in ("zero_shot",):
            record.stages = [*Sequence(record.trial.experiment, bench, store)]
            record.status = "FINISHED"
    records.write()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, bench: Workbench, features: Path) -> Path:
    storage = tmp_path_factory.mktemp("tuned")
    return make_run(
        storage,
        bench,
        features,
        "method: fwd_prompt\naxes: {method: [fwd_prompt, er]}",
        "zero_shot, direct, multitask, sequential",
    )


@pytest.fixture(scope="module")
def said(run: Path) -> str:
    """What the command says; its figures are then in the RUN."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main([str(run)]) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def states(run: Path, bench: Workbench) -> States:
    return find_states(run, load_spec(run / "sweep.yaml"), bench, str(run.parent / "stages"))


def fed(bench: Workbench, task: str, tuner: Tuner | None) -> list[Tensor]:
    """[n, d] of each training row: what goes through the model's entrance in an evaluation, but for padding."""
    seen: list[Tensor] = []
    watch = bench.model.entrance.register_forward_hook(lambda _module, _sent, made: seen.append(made))
    found: list[Tensor] = []
    try:
        rows = bench.rows(task, "train")
        for i in torch.arange(len(rows)).split(7):
            with torch.no_grad():
                encoded, _ = encode(bench.model, tuner, rows[i])
            masks = bench.model.row_masks(encoded, rows.labels_at(i))["encoder"]
            found += [row[mask] for row, mask in zip(seen.pop(), masks, strict=True)]
    finally:
        watch.remove()
    return found


def directions(rows: Many[Tensor]) -> list[np.ndarray]:
    arrays = [row.double().numpy() for row in rows]
    return [array / np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]


def state_by_hand(run: Path, method: str, stage: int) -> tuple[Tensor, StageState]:
    """The state of a stage, through the sequence that finds it in the store by its key."""
    spec = load_spec(run / "sweep.yaml")
    trial = next(one for one in make_trials(spec) if one.method == method and one.experiment.seed == 3)
    bench = Workbench("tiny", "tiny", "cpu", run.parent / "features")
    key = Sequence(trial.experiment, bench).chain[stage].key
    state = StageStore(run.parent / "stages").peek(key)
    return state.tensors["prompts"], state


def table(run: Path, name: str) -> list[dict[str, str]]:
    with (run / "figures" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_state_is_found_of_the_first_seed(states: States, run: Path) -> None:
    assert list(states.found) == list(METHODS)
    assert not states.missing
    assert not states.lacks()
    for state in states.found.values():
        assert state.experiment.seed == 3
        assert state.told == f"{state.record.trial.id} (seed 3, attribute>ground)"


@pytest.mark.parametrize(
    ("name", "method", "stages"),
    [("direct", "direct", (0, 1)), ("multitask", "multitask", (0, 0)), ("sequential", "sequential", (1, 1))],
)
def test_a_state_is_what_its_stage_left(
    states: States, run: Path, name: str, method: str, stages: tuple[int, int]
) -> None:
    for task, stage in zip(TASKS, stages, strict=True):
        prompts, _ = state_by_hand(run, method, stage)
        assert torch.equal(states.found[name].tuners[task].parameters()["prompts"].detach(), prompts)


def test_inputs_are_what_an_evaluation_feeds_the_language_model(bench: Workbench, states: States) -> None:
    task = "ground"
    tuners = {name: state.tuners[task] for name, state in states.found.items()}
    untouched, tuned = tuned_inputs(bench, task, tuners)
    for name, found in (("", untouched), *tuned.items()):
        rows = directions(fed(bench, task, tuners.get(name)))
        together = np.concatenate(rows)
        assert found.statistics.count == len(together)
        assert found.statistics.gram.numpy() == pytest.approx(together.T @ together, abs=1e-6)
        assert found.points.numpy() == pytest.approx(np.stack([row.mean(0) for row in rows]), abs=1e-7)
    assert tuned["direct"].statistics.count == untouched.statistics.count + len(untouched.points) * 2 * 3


def test_figures_of_all_states(said: str, run: Path, bench: Workbench, states: States) -> None:
    assert "missing" not in said
    assert "not made" not in said
    ranks = table(run, "rank_of_tuned_input_embeddings")
    assert {row["state"] for row in ranks} == {"initial", "untrained prompts", *METHODS}
    found = {(row["task"], row["state"], row["measure"]): float(row["directions"]) for row in ranks}
    start = build_tuner(states.found["direct"].experiment, bench, None)
    for task in TASKS:
        tuners = {"initial": None, "untrained prompts": start}
        for name, tuner in {**tuners, **{name: one.tuners[task] for name, one in states.found.items()}}.items():
            squared = np.linalg.svd(np.concatenate(directions(fed(bench, task, tuner))), compute_uv=False) ** 2
            shares = squared / squared.sum()
            some = shares[shares > 1e-14]
            for share in (90, 99):
                wanted = int(np.argmax(np.cumsum(shares) >= share / 100)) + 1
                assert found[task, name, f"{share} % of the energy"] == wanted
            assert found[task, name, "effective rank"] == pytest.approx(np.exp(-(some * np.log(some)).sum()), rel=1e-6)


@pytest.mark.usefixtures("said")
def test_the_axes_are_those_of_the_untouched_points_in_both_panels(run: Path, bench: Workbench, states: States) -> None:
    """The dots of both panels, by a principal component analysis of numpy's on the untouched points alone."""
    before = {task: np.stack([row.mean(0) for row in directions(fed(bench, task, None))]) for task in TASKS}
    tuners = states.found["direct"].tuners
    after = {task: np.stack([row.mean(0) for row in directions(fed(bench, task, tuners[task]))]) for task in TASKS}
    pooled = np.concatenate([*before.values()])
    _, _, across = np.linalg.svd(pooled - pooled.mean(0), full_matrices=False)
    rows = [row for row in table(run, "contours_of_input_embeddings") if row["kind"] == "mean"]
    drawn = {(row["panel"], row["task"]): (float(row["x"]), float(row["y"])) for row in rows}
    for panel, points in (("before", before), ("after direct tuning", after)):
        for task in TASKS:
            place = (points[task].mean(0) - pooled.mean(0)) @ across[:2].T
            assert np.abs(drawn[panel, task]) == pytest.approx(np.abs(place), abs=1e-6)
    captions = json.loads((run / "figures" / "captions.json").read_text())
    assert states.found["direct"].told in captions["contours_of_input_embeddings"]


def test_both_panels_have_one_scale(run: Path, bench: Workbench, states: States) -> None:
    from orchestration.report.tuned_inputs import contour_figure, gather

    figure = contour_figure(gather(bench, TASKS, states), states)
    first, second = figure.panels
    assert first.spec == second.spec
    assert [panel.title for panel in figure.panels] == ["before", "after direct tuning"]
    for row in (*first.rows, *second.rows):
        for axis in ("x", "y"):
            low, high = first.spec["layer"][0]["encoding"][axis]["scale"]["domain"]  # type: ignore[index]
            assert low < float(row[axis] or 0) < high


def test_a_contour_is_closed_and_holds_its_share() -> None:
    from matplotlib.path import Path as Outline

    places = np.random.default_rng(0).normal(size=(600, 2)) @ np.array([[3.0, 1.0], [0.0, 0.02]])
    for share in (0.5, 0.9):
        lines = contours(places, share)
        assert lines
        assert all(np.array_equal(line[0], line[-1]) for line in lines)
        inside = np.any([Outline(line).contains_points(places) for line in lines], axis=0)
        assert inside.mean() == pytest.approx(share, abs=0.02)
        assert len(lines) == 1
    assert contours(places[:2], 0.5) == []
    assert contours(np.linspace(0, 1, 40)[:, None] * [1, 2], 0.5) == []
    assert contours(np.ones((20, 2)), 0.5) == []


def test_a_plane_is_that_of_the_greatest_variance() -> None:
    points = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1, 5, 1, 3, 1.0])
    plane = Plane.of(points + 7)
    assert plane.axes.abs().argmax(0).tolist() == [1, 3]
    assert plane.places(points + 7).mean(0) == pytest.approx([0, 0], abs=1e-9)
    assert sum(plane.shares) == pytest.approx((25 + 9) / 37, abs=0.03)


def test_states_that_the_sweep_lacks_are_told(
    tmp_path: Path, bench: Workbench, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, bench, features, "method: fwd_prompt", "direct, sequential")
    assert main([str(run)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert "multitask is missing: add `multitask` to `references`" in said
    assert "replay is missing: add `er` to `axes.method`" in said
    assert f"`mcit sweep {ALL_OF_THEM}` makes all of them" in said
    caption = json.loads((run / "figures" / "captions.json").read_text())["rank_of_tuned_input_embeddings"]
    assert "multitask is missing" in caption
    assert {row["state"] for row in table(run, "rank_of_tuned_input_embeddings")} == {
        "initial",
        "untrained prompts",
        "direct",
        "sequential",
    }
    shutil.rmtree(tmp_path / "stages")
    assert main([str(run)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("not made: contours and ranks of input embeddings after tuning")
    assert f"is not in {tmp_path / 'stages'} (0 stages" in said
    assert not (run / "figures" / "contours_of_input_embeddings.png").exists()


def test_a_tuner_without_prompts_is_told(
    tmp_path: Path, bench: Workbench, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a sweep of methods that each have their own tuner."""
    run = make_run(
        tmp_path, bench, features, "method: fwd_prompt\naxes: {method: [fwd_prompt, er]}", "sequential", base=""
    )
    assert main([str(run)]) == 0
    said = capsys.readouterr().out
    assert "not made: contours of input embeddings after direct tuning. direct is missing" in said
    assert "has tuner lora, which leaves the input as it is" in said


def test_the_shipped_sweep_has_all_states() -> None:
    trials = make_trials(load_spec(ROOT / "sweeps" / f"{ALL_OF_THEM}.yaml"))
    assert {trial.method for trial in trials} >= {method for methods, _ in METHODS.values() for method in methods[:1]}
    assert {trial.experiment.tuner for trial in trials} == {"prompt_pool"}


def test_what_is_missing_is_told_of_those_asked_for(states: States) -> None:
    found: dict[str, State] = {"direct": states.found["direct"]}
    lacking = States(found, {"replay": "why"})
    assert lacking.lacks("direct") == ""
    assert lacking.lacks("replay").startswith("replay is missing: why. ")
