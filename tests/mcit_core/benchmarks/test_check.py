"""The checker of benchmark folders: every planted defect is found, and none on a clean folder."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcit_core.benchmarks.answers import guess, never_right, said_outright
from mcit_core.benchmarks.check import kind_of_folder, main
from mcit_core.benchmarks.shapes import shape
from tests.support import public_data

Rows = list[dict[str, Any]]
ASKED = "\nAnswer with the option's letter from the given choices directly."
#: what is done to the test rows (and the folder of the pictures) of a task -> the finding that must come of it
Plant = Callable[[Rows, Rows, Path, random.Random], None]


def broken(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    del rng.choice(test)["answer"]


def out_of_order(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    rng.choice(train)["conversations"].append({"from": "gpt", "value": "again"})


def missing(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    rng.choice(test)["image"] += ".gone"


def cut_short(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    path = pictures / rng.choice(test)["image"]
    path.write_bytes(path.read_bytes()[:-40])


def same_id(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    test[1]["question_id"] = test[0]["question_id"]


def same_row(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    test.append({**rng.choice(test), "question_id": "another"})


def in_training(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    """Under another name of the picture's file."""
    row = rng.choice(test)
    first = pictures / row["image"]
    copy = first.with_name(f"copy_of_{first.name}")
    shutil.copy(first, copy)
    image = row["image"].replace(first.name, copy.name)
    turns = [{"from": "human", "value": f"<image>\n{row['text']}"}, {"from": "gpt", "value": "whatever"}]
    train.append({"id": "copied", "image": image, "conversations": turns})


def quote(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    row = rng.choice(test)
    row["answer"] = '"' + row["answer"]


def lettered(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    row = rng.choice(test)
    row["text"], row["answer"] = f"Which one?{public_data.LETTER}", "C. blue"


def rationale(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    for i, row in enumerate(test):
        colour = rng.choice([*public_data.COLOURS])
        row["text"] = f"Which one, {i}?\n{public_data.OPTIONS}\nRationale: all of it is {colour}.{ASKED}"
        row["answer"] = "ABCD"[[*public_data.COLOURS].index(colour)]


def outright(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    row = rng.choice(test)
    row["text"] += f"\nThe answer is {row['answer']}."


def unlettered(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    row = rng.choice(test)
    row["text"], row["answer"] = f"Which?\nred\nblue{ASKED}", "A"


def other_shape(train: Rows, test: Rows, pictures: Path, rng: random.Random) -> None:
    for row in test:
        row["answer"] = f"it is all {row['answer']} in this picture"


DEFECTS: dict[str, tuple[Plant, str]] = {
    "broken": (broken, "broken_row"),
    "turns": (out_of_order, "broken_row"),
    "missing": (missing, "missing_picture"),
    "cut": (cut_short, "unreadable_picture"),
    "id": (same_id, "duplicate_id"),
    "row": (same_row, "duplicate_row"),
    "overlap": (in_training, "in_training"),
    "quote": (quote, "gold_never_right"),
    "letter": (lettered, "gold_never_right"),
    "rationale": (rationale, "prompt_gives_away"),
    "outright": (outright, "answer_in_prompt"),
}
NOTES: dict[str, tuple[Plant, str]] = {
    "unlettered": (unlettered, "options_unlettered"),
    "shape": (other_shape, "shape_sentence"),
}
#: a task of each form whose answers are words under exact match, the folder of its files and that of its pictures
WORDS = {
    "ucit": ("ImageNet-R", "instructions/ImageNet-R", "datasets"),
    "mllm_dcl": ("Med", "Med", "Med"),
    "llava_json": ("colours", "colours", "colours"),
}


def checked(root: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = main([str(root), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def plant(kind: str, root: Path, how: Plant, seed: int) -> None:
    folder, pictures = (root / part for part in WORDS[kind][1:])
    paths = [next(folder.glob(f"{split}*.json")) for split in ("train", "test")]
    train, test = (json.loads(path.read_text()) for path in paths)
    how(train, test, pictures, random.Random(seed))
    for path, rows in zip(paths, (train, test), strict=True):
        path.write_text(json.dumps(rows))


@pytest.mark.parametrize("kind", public_data.FORMS)
def test_a_clean_folder_has_no_defect_and_its_form_is_told(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = public_data.FORMS[kind](tmp_path / "data")
    assert kind_of_folder(root) == kind
    code, told = checked(root, capsys)
    assert (code, told["defects"], told["kind"]) == (0, 0, kind), told["findings"]
    assert main([str(root)]) == 0
    assert "Wrong: nothing" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*DEFECTS, *NOTES])
@pytest.mark.parametrize("kind", WORDS)
def test_what_is_planted_is_found_and_nothing_else(
    kind: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how, wanted = {**DEFECTS, **NOTES}[name]
    root = public_data.FORMS[kind](tmp_path / "data", train=40, test=30)  # type: ignore[call-arg]
    before = {(found["kind"], found["task"]) for found in checked(root, capsys, "--kind", kind)[1]["findings"]}
    plant(kind, root, how, seed=len(name))
    code, told = checked(root, capsys, "--kind", kind)
    assert code == (1 if name in DEFECTS else 0), told["findings"]
    new = {(found["kind"], found["task"]): found for found in told["findings"]}
    task = WORDS[kind][0]
    assert (wanted, task) in new, new
    assert new[wanted, task]["where"]
    assert {key[0] for key, found in new.items() if found["defect"]} == ({wanted} if name in DEFECTS else set())
    assert {key[1] for key in new.keys() - before} == {task}


def test_a_file_that_is_cut_short_and_one_that_is_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = public_data.llava_json(tmp_path / "data")
    path = root / "colours" / "train.json"
    path.write_bytes(path.read_bytes()[:-30])
    (root / "letters" / "test.json").write_text("not at all")
    code, told = checked(root, capsys)
    assert code == 1
    assert {(found["kind"], found["task"]) for found in told["findings"] if found["defect"]} == {
        ("broken_row", "colours"), ("broken_row", "letters"),
    }  # fmt: skip


def test_a_missing_folder_of_pictures_is_one_finding_and_names_with_marks_are_no_duplicates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = public_data.llava_json(tmp_path / "data")
    path = root / "letters" / "train.json"
    rows = json.loads(path.read_text())
    for i, row in enumerate(rows):
        row["id"] = f"img7#{i}"
    path.write_text(json.dumps(rows))
    (root / "colours" / "images").rename(tmp_path / "images")
    code, told = checked(root, capsys)
    assert code == 1
    assert {found["kind"] for found in told["findings"] if found["defect"]} == {"missing_picture"}
    assert checked(root, capsys, "--images", str(tmp_path))[0] == 0


def test_coins_other_wordings_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = public_data.coin(tmp_path / "data")
    (root / "Instructions_Original").rename(root / "Instructions_Diverse")
    assert checked(root, capsys)[0] == 0
    assert main([str(root), "--instructions", "10Type"]) == 2
    assert "has no folder Instructions_10Type; it has Instructions_Diverse" in capsys.readouterr().err


def test_an_empty_replay_file_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = public_data.mllm_dcl(tmp_path / "data")
    (root / "task1_replay30.json").write_text("[]")
    code, told = checked(root, capsys)
    assert code == 0
    assert [found["kind"] for found in told["findings"]].count("empty_replay") == 1


def test_rows_that_got_lost_are_a_defect_and_a_part_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = public_data.ucit(tmp_path / "data")
    sizes = {"ucit": {"ImageNet-R": {"test": 9}, "ArxivQA": {"test": 3000}, "IconQA": {"test": 8}}}
    monkeypatch.setattr("mcit_core.benchmarks.audit.PART", 0.8)
    monkeypatch.setattr("mcit_core.benchmarks.audit.SIZES", sizes)
    code, told = checked(root, capsys)
    assert code == 1
    found = {one["task"]: one for one in told["findings"] if one["kind"] == "rows_published"}
    assert found.keys() == {"ImageNet-R", "ArxivQA"}
    assert found["ImageNet-R"]["defect"]
    assert found["ImageNet-R"]["text"] == "8 rows, where 9 are published"
    assert not found["ArxivQA"]["defect"]


def test_what_cannot_be_read_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "has no benchmark.yaml" in capsys.readouterr().err
    (tmp_path / "benchmark.yaml").write_text("tasks: [")
    assert main([str(tmp_path)]) == 2
    assert "benchmark.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A", "letter"), ("a.", "letter"), ("(A", "word"), ("3", "digit"), ("1,877", "digit"), ("-2.5%", "digit"),
        ("cat", "word"), ("tabby cat", "phrase"), ("a b c d", "phrase"), ("a b c d e", "sentence"),
        ("[0.1,0.2,0.3,0.4]", "box"), ("0.1, 0.2, 0.3, 0.4", "box"), ("red, green, blue", "list"), ("[1,2]", "list"),
        ("", "nothing"), (" \n", "nothing"),
    ],
)  # fmt: skip
def test_shapes(answer: str, expected: str) -> None:
    assert shape(answer) == expected


def test_golds_that_can_be_right_are_left_alone() -> None:
    letters = public_data.LETTER
    for gold, question, rule in [
        ("C", f"Which?{letters}", "exact"), ("2", "0. a\n1. b\n2. c\nAnswer with the option's letter", "exact_upper"),
        ('the "big" one', "what ?", "exact"), ("C. elegans", "which worm ?", "exact"), ("5'", "how long ?", "exact"),
        ('12" x 5"', "how large ?", "exact"), ('5"', "how long ?", "exact"), ('"5"', "which ?", "exact"),
        ("1:30", f"When?{letters}", "exact_upper"), ('"dragonfly', "what ?", "contains"), ("B", "", "letter"),
        ("C. blue", f"Which?{letters}", "contains"), ("[0,0,1,1]", "where ?", "iou"),
    ]:  # fmt: skip
        assert never_right(gold, question, rule) is None, gold
    assert never_right("F", "", "letter")
    assert never_right("[1,1,0,0]", "where ?", "iou")
    assert never_right("left", "where ?", "iou")


def test_a_prompt_that_says_its_answer() -> None:
    assert said_outright("Which?\nThe answer is B.", "B")
    assert said_outright("Which? Answer: left lung", "left lung")
    assert not said_outright("Answer the question using a single word or phrase.", "the")
    assert not said_outright("what is the answer ?", "the")
    assert not said_outright("The answer is a single letter.", "A")
    assert not said_outright("Answer: choose one of the options", "C")
    assert not said_outright("The answer: yes or no", "yes")
    assert not said_outright("Is the answer in the picture red or blue ?", "red")
    assert guess("Which?\nA. red\nB. deep blue\nRationale: all of it is deep blue") == "B"
    assert guess("Which?\nA. red\nB. deep blue") is None
