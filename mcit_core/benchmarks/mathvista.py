"""The answer of MathVista's questions where it is plain: one option, one number, one list.

Source: Lu et al., MathVista, arXiv 2310.02255: its published evaluation has a language model extract the answer from
what was said, and compares what was extracted. Here nothing is asked: an answer from which one thing alone can be meant
is compared, and any other is wrong (reconstruction).
"""

from __future__ import annotations

import re

NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)")


def options_of(question: str) -> dict[str, str]:
    """Letter -> option of the lines below "Choices:", empty where the question has none."""
    _, found, below = question.partition("Choices:\n")
    return dict(re.findall(r"^\(([A-Z])\) ([^\r\n]*)", below, re.MULTILINE)) if found else {}


def plain_answer(prediction: str, gold: str, question: str) -> tuple[float, str]:
    """1.0 where the one answer that is given is the gold, and why; `gold` is an option's text where there are any."""
    options = options_of(question)
    if options:
        letter = _chosen(prediction, options)
        if letter is None:
            return 0.0, f"no one option of {', '.join(options)}"
        right = gold in (letter, options[letter])
        return float(right), f"option {letter}, {options[letter]!r}, is compared with {gold!r}"
    if gold.startswith("["):
        lists = re.findall(r"\[[^\[\]]*\]", prediction)
        if len(lists) != 1:
            return 0.0, f"{len(lists)} lists where one is asked for"
        return float(lists[0].replace(" ", "") == gold.replace(" ", "")), f"{lists[0]} is compared with {gold}"
    if not NUMBER.fullmatch(gold):
        return float(prediction.strip() == gold), f"{prediction.strip()!r} is compared with {gold!r}"
    numbers = NUMBER.findall(prediction)
    if len(numbers) != 1:
        return 0.0, f"{len(numbers)} numbers where one is asked for"
    digits = len(gold.partition(".")[2])
    given, told = (float(text.replace(",", "")) for text in (numbers[0], gold))
    same = given == told or (digits > 0 and round(given, digits) == round(told, digits))
    return float(same), f"{numbers[0]} is compared with {gold}{', rounded to its digits' if digits else ''}"


def _chosen(prediction: str, options: dict[str, str]) -> str | None:
    """The letter of the one option that is named: by letters in brackets, by letters alone, or by its text."""
    words = re.findall(r"(?<![\w'])([A-Z])(?![\w'])", prediction)
    for letters in ({*re.findall(r"\(([A-Z])\)", prediction)}, {*words}):
        named = letters & {*options}
        if named:
            return named.pop() if len(named) == 1 else None
    said = prediction.strip().removesuffix(".").lower()
    whole = [letter for letter, text in options.items() if text.strip().lower() == said]
    inside = [letter for letter, text in options.items() if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", prediction)]
    found = whole or inside
    return found[0] if len(found) == 1 else None
