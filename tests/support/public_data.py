"""Small folders in the forms of public benchmarks, with pictures that `mini` reads; every word of them is ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 50), "blue": (40, 70, 220), "yellow": (235, 205, 40)}
QUESTION = "What color is the picture?"
WORD = "\nAnswer the question using a single word or phrase."
OPTIONS = "\n".join(f"{letter}. {colour}" for letter, colour in zip("ABCD", COLOURS, strict=True))
LETTER = f"\n{OPTIONS}\nAnswer with the option's letter from the given choices directly."

#: what is asked and answered of a picture of one colour
Ask = Callable[[str], tuple[str, Any]]


def word(colour: str) -> tuple[str, Any]:
    return QUESTION + WORD, colour


def letter(colour: str) -> tuple[str, Any]:
    return "Which color is it?" + LETTER, "ABCD"[[*COLOURS].index(colour)]


def caption(colour: str) -> tuple[str, Any]:
    return "What is happening in the image?\nGenerate a brief caption for the image.", f"A square that is all {colour}"


def box(colour: str) -> tuple[str, Any]:
    side = 0.25 * (1 + [*COLOURS].index(colour))
    return f"Where is the {colour}?", f"[0.0,0.0,{side:.2f},{side:.2f}]"


def draw(path: Path, colour: str, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(np.array(COLOURS[colour]) + rng.integers(-15, 16, (48, 48, 3)), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write(path: Path, rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


def rows_for(
    folder: Path, inside: str, ask: Ask, count: int, split: str, rng: np.random.Generator, more: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of a split, and their pictures below `folder`, at the paths `inside` that the rows name."""
    rows = []
    for i in range(count):
        colour = [*COLOURS][int(rng.integers(len(COLOURS)))]
        image = f"{inside}/{split}_{i:04d}.png"
        draw(folder / image, colour, rng)
        question, answer = ask(colour)
        if split == "train":
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": str(answer)}]
            rows.append({"id": f"{i:05d}", "image": image, "conversations": turns})
        else:
            rows.append({"question_id": f"{i:05d}", "image": image, "text": question, "answer": answer, **more})
    return rows


def coin(root: Path, train: int = 24, test: int = 8, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    asks: dict[str, tuple[Ask, str]] = {
        "ScienceQA": (letter, "test.json"), "TextVQA": (word, "val.json"), "GQA": (word, "test.json"),
        "Grounding": (box, "test.json"), "VQAv2": (word, "val.json"),
    }  # fmt: skip
    for task, (ask, tests) in asks.items():
        folder = root / "Instructions_Original" / task
        made = rows_for(root / "cl_dataset", task, ask, train, "train", rng, {})
        write(folder / "train.json", made)
        made = rows_for(root / "cl_dataset", task, ask, test, "test", rng, {})
        if task == "Grounding":
            for row in made:
                row["answer_bbox"], row["size"] = row.pop("answer"), [640, 480]
        if task == "ScienceQA":  # rows of text alone have no image
            del made[0]["image"]
            made[0]["text"] = made[0]["text"].replace("<image>\n", "")
        write(folder / tests, made)
    return root


def ucit(root: Path, train: int = 24, test: int = 8, seed: int = 1) -> Path:
    """As one of the copies has it: CLEVR and Vizcap for CLEVR-Math and VizWiz, train_4w.json for train.json."""
    rng = np.random.default_rng(seed)
    asks: dict[str, tuple[Ask, str]] = {
        "ImageNet-R": (word, "train.json"), "ArxivQA": (letter, "train_4w.json"), "Vizcap": (caption, "train.json"),
        "IconQA": (letter, "train.json"), "CLEVR": (word, "train_4w.json"),
        "Flickr30k": (caption, "train_brief_4w.json"),
    }  # fmt: skip
    for task, (ask, name) in asks.items():
        folder = root / "instructions" / task
        write(folder / name, rows_for(root / "datasets", task, ask, train, "train", rng, {}))
        write(folder / "test_3000.json", rows_for(root / "datasets", task, ask, test, "test", rng, {}))
        if ask is caption:
            write(folder / "val_coco_type_3000.json", {"images": [], "annotations": []})
    return root


def mllm_dcl(root: Path, train: int = 24, test: int = 8, seed: int = 2) -> Path:
    rng = np.random.default_rng(seed)
    for task, ask in {"RS": word, "Med": word, "AD": letter, "Sci": word, "Fin": letter}.items():
        for split, count in (("train", train), ("test", test)):
            rows = rows_for(root / task, "images", ask, count, split, rng, {})
            write(root / task / f"{split}.json", rows)
    return root


def mllm_acl(root: Path, train: int = 24, test: int = 8, seed: int = 3) -> Path:
    rng = np.random.default_rng(seed)
    for task, apart in {"OCR": "OCR_test", "VP": "VP_test"}.items():
        write(root / task / "train.json", rows_for(root / task, "images", word, train, "train", rng, {}))
        rows = rows_for(root / apart, "images", word, test, "test", rng, {"answer_type": "Text Recognition"})
        if task == "OCR":
            for row in rows:
                row["answer"] = [row["answer"], row["answer"].upper()]
        write(root / apart / "test.json", rows)
    return root


def llava_json(root: Path, train: int = 24, test: int = 8, seed: int = 4) -> Path:
    rng = np.random.default_rng(seed)
    for task, ask in {"colours": word, "letters": letter}.items():
        llava_json_task(root / task, ask, train, test, rng)
    return root


def llava_json_task(folder: Path, ask: Ask, train: int, test: int, rng: np.random.Generator) -> None:
    for split, count in (("train", train), ("test", test)):
        write(folder / f"{split}.json", rows_for(folder, "images", ask, count, split, rng, {}))


FORMS: dict[str, Callable[[Path], Path]] = {
    "coin": coin, "ucit": ucit, "mllm_dcl": mllm_dcl, "mllm_acl": mllm_acl, "llava_json": llava_json,
}  # fmt: skip
