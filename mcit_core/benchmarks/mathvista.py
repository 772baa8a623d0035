"""The answer of MathVista's questions where it is plain: one option, one number, one list.

Source: Lu et al., MathVista, arXiv 2310.02255: its published evaluation has a language model extract the answer from
what was said, and compares what was extracted. Here nothing is asked: an answer from which one thing alone can be meant
is compared, and any other is wrong (reconstruction).
"""

from __future__ import annotations

import re

#: with commas between thousands, or without
NUMBER = re.compile(r"(?<![\w.,])[-−]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?![.,]*\d)")
#: a letter that is the answer: by itself, before what it stands for, or after "answer is"
ALONE = re.compile(r"\(?([A-Z])\)?[.:]?")
BEFORE = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.:)])(?:\s|$)")
TOLD = re.compile(r"\b(?i:answer|option|choice)(?: is)?:?\s+\(?([A-Z])\)?(?![\w'])")
NOT = re.compile(r"\b(?:not|no|nor|wrong|neither|never)\b|n't\b", re.IGNORECASE)


def options_of(question: str) -> dict[str, str]:
    """Letter -> option of the lines below "Choices:", empty where the question has none."""
    found = re.split(r"^Choices:\s*$", question, maxsplit=1, flags=re.MULTILINE)
    if len(found) < 2:
        return {}
    pairs = re.findall(r"^\s*\(([A-Z])\) ?([^\r\n]*)", found[1], re.MULTILINE)
    return {letter: text.strip() for letter, text in pairs}


def plain_answer(prediction: str, gold: str, question: str) -> tuple[float, str]:
    """1.0 where the one answer that is given is the gold, an option's text or letter where there are any; and why.
    Raises ValueError without the question, in which the options stand."""
    if not question.strip():
        raise ValueError("without its question, in which the options stand, an answer of MathVista cannot be judged")
    said, options = prediction.strip(), options_of(question)
    if options:
        letter = _chosen(said, options)
        if letter is None:
            return 0.0, f"no one option of {', '.join(options)}"
        right = options[letter] == gold or (gold == letter and gold not in options.values())
        return float(right), f"option {letter}, {options[letter]!r}, is compared with {gold!r}"
    if gold.startswith("["):
        lists = _lists(said)
        if len(lists) != 1:
            return 0.0, f"{len(lists)} lists where one is asked for"
        return float(lists[0].replace(" ", "") == gold.replace(" ", "")), f"{lists[0]} is compared with {gold}"
    if not NUMBER.fullmatch(gold):
        return float(said == gold), f"{said!r} is compared with {gold!r}"
    numbers = [found[0] for found in NUMBER.finditer(said)]
    if len(numbers) != 1:
        return 0.0, f"{len(numbers)} numbers where one is asked for"
    digits = len(gold.partition(".")[2])
    given, told = (float(text.replace(",", "").replace("−", "-")) for text in (numbers[0], gold))
    same = given == told or (digits > 0 and round(given, digits) == round(told, digits))
    return float(same), f"{numbers[0]} is compared with {gold}{', rounded to its digits' if digits else ''}"


def _chosen(said: str, options: dict[str, str]) -> str | None:
    """The letter of the one option that is meant: by its letter, or by its text."""
    alone, before, told = ALONE.fullmatch(said), BEFORE.match(said), TOLD.findall(said)
    if alone:
        return alone[1] if alone[1] in options else None
    named = {*told, *filter(None, before.groups() if before else ())} & {*options}
    if named:
        return named.pop() if len(named) == 1 else None
    texts = {letter: text.lower() for letter, text in options.items() if text}
    found = [letter for letter, text in texts.items() if text == said.removesuffix(".").lower()]
    if not found and not NOT.search(said):
        inside = {letter: rf"(?<![\w.,-]){re.escape(text)}(?![\w]|[.,]\d)" for letter, text in texts.items()}
        found = [letter for letter, pattern in inside.items() if re.search(pattern, said, re.IGNORECASE)]
    return found[0] if len(found) == 1 else None


def _lists(said: str) -> list[str]:
    """The lists in a text, each whole with those that are in it."""
    found, depth, start = [], 0, 0
    for place, sign in enumerate(said):
        if sign == "[":
            start, depth = (place if depth == 0 else start), depth + 1
        elif sign == "]" and depth:
            depth -= 1
            if depth == 0:
                found.append(said[start : place + 1])
    return found
