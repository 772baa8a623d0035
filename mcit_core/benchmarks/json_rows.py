"""Rows of the files that vision-language models are trained and tested on: a JSON array, or a line for each.

The forms are those of LLaVA and of the benchmarks made in its likeness: `id`, `image` and `conversations` for training;
`question_id`, `image`, `text` and `answer` for tests. Nothing is loaded whole: CoIN's largest file has 731 MB.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import ijson

#: what the published files call the two who talk
ASKS, ANSWERS = ("human", "user"), ("gpt", "assistant")
#: keys of a test row's question and of its number, by what is looked at first
QUESTION, NUMBER = ("text", "question", "instruction", "prompt"), ("question_id", "id")
#: how an event changes the depth, and how deep a file may be
OPENS = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}
DEEPEST = 32
#: further keys of a test row that a rule of scoring looks at
TOLD = ("category", "answer_type", "type", "task")


class BadRow(ValueError):
    """A row that cannot be read; its text says why. `picture`: the one that is missing, if that is why."""

    def __init__(self, why: str, picture: str = "") -> None:
        super().__init__(why)
        self.picture = picture


@dataclass(frozen=True)
class Row:
    """One answer that is asked for. `golds`: all that count as right, the first is what is learnt; `images`: as they
    are written; `told`: what a rule of scoring looks at besides."""

    id: str
    images: list[str]
    instruction: str
    golds: list[str]
    history: list[tuple[str, str]] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)


def read_objects(path: Path) -> Iterator[tuple[int, object]]:
    """Number and content of each element of a JSON array (from 0), or of each line (from 1) of a file of lines; a
    BadRow in the place of one that is no JSON, behind which of an array nothing can be read. Raises OSError."""
    with path.open("rb") as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        start = file.tell()
        first = file.read(1)
        while first.isspace():
            first = file.read(1)
        file.seek(start)
        yield from _elements(file) if first == b"[" else _lines(file)


def _elements(file: IO[bytes]) -> Iterator[tuple[int, object]]:
    number = depth = 0
    builder = ijson.ObjectBuilder()
    try:
        events = ijson.basic_parse(file, use_float=True)
        next(events)  # the array itself opens
        for event, value in events:
            if depth == 0 and event == "end_array":
                break
            depth += OPENS.get(event, 0)
            if depth > DEEPEST:
                yield number, BadRow(f"lists in lists, more than {DEEPEST} deep; nothing is read from here on")
                return
            builder.event(event, value)
            if depth == 0:
                yield number, builder.value
                number, builder = number + 1, ijson.ObjectBuilder()
    except (ijson.JSONError, UnicodeDecodeError) as error:
        yield number, BadRow(f"no JSON from here on: {' '.join(str(error).split())[:120]}")


def _lines(file: IO[bytes]) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            if line.strip() == b"{":
                yield number, BadRow("an object over several lines; expected a list of rows, or a row a line")
                return
            yield number, BadRow(f"no JSON: {' '.join(str(error).split())[:120]}")


def rows_of(found: object, number: int) -> list[Row]:
    """The rows of an element, one for each answer of a conversation. Raises BadRow."""
    if isinstance(found, BadRow):
        raise found
    if not isinstance(found, dict):
        raise BadRow(f"expected an object with keys, got {type(found).__name__}")
    name = name_of(found, number)
    images = found.get("image", found.get("images"))
    images = [] if images is None else [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
        raise BadRow("image: expected a path, several or none")
    if "conversations" in found:
        return _conversation(found["conversations"], name, images)
    return [_question(found, name, images)]


def name_of(found: Mapping[str, object], number: int) -> str:
    """The id of an element, its number where it has none."""
    return next((str(found[key]) for key in NUMBER if found.get(key) is not None), str(number))


def _conversation(turns: object, name: str, images: list[str]) -> list[Row]:
    if not isinstance(turns, list) or not turns:
        raise BadRow("conversations: expected a list of turns")
    said: list[tuple[bool, str]] = []  # whether it is asked, and the text
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise BadRow("conversations: expected turns with `from` and `value`, a text")
        if turn.get("from") not in (*ASKS, *ANSWERS):
            raise BadRow(f"conversations: a turn from {turn.get('from')!r}, expected human or gpt")
        said.append((turn["from"] in ASKS, turn["value"]))
    if said and not said[0][0]:
        said = said[1:]  # as LLaVA's own reader has it
    if len(said) < 2 or len(said) % 2 or any(asks != (i % 2 == 0) for i, (asks, _) in enumerate(said)):
        raise BadRow("conversations: turns out of order, expected human and gpt in turn")
    texts = [(_plain(said[i][1]), said[i + 1][1].strip()) for i in range(0, len(said), 2)]
    if any(not answer for _, answer in texts):
        raise BadRow("conversations: an empty answer")
    if any(not question for question, _ in texts):
        raise BadRow("conversations: an empty question")
    return [
        Row(name if len(texts) == 1 else f"{name}#{i}", images, question, [answer], texts[:i])
        for i, (question, answer) in enumerate(texts)
    ]


def _question(found: Mapping[str, object], name: str, images: list[str]) -> Row:
    texts = (found.get(key) for key in QUESTION)
    question = next((text for text in texts if isinstance(text, str)), None)
    if question is None:
        raise BadRow(f"no question: expected `conversations`, or one of {', '.join(QUESTION)}")
    box = found.get("answer_bbox")
    golds = found.get("answer", found.get("answers"))
    if box is not None:
        golds = str(box)  # of CoIN, a text; a list of four numbers reads alike
    golds = golds if isinstance(golds, list) else [golds]
    golds = [gold.get("answer") if isinstance(gold, dict) else gold for gold in golds]
    if not golds or not all(isinstance(gold, str | int | float) and str(gold).strip() for gold in golds):
        raise BadRow("no answer: expected `answer`, a text or a list of texts")
    question = _plain(question)
    if not question:
        raise BadRow("an empty question")
    told = {key: str(found[key]) for key in TOLD if found.get(key) is not None}
    return Row(name, images, question, [str(gold).strip() for gold in golds], told=told)


def _plain(text: str) -> str:
    """Without the marks of pictures, which a model puts where it wants them."""
    return text.replace("<image>", "").strip()
