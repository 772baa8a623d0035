"""Answers and prompts looked at by their form: what shape an answer has, and what is wrong with a gold or a prompt."""

from __future__ import annotations

import math
import re
import string

from mcit_core.benchmarks.scorers import score

LETTER_ASKED = re.compile(r"option'?s letter|letter of the|given letter", re.IGNORECASE)
OPTION = re.compile(r"^\s*\(?([A-Z0-9])[.):]\s*(\S.*)$", re.MULTILINE)
_COMMON = "the a an of to in is are and for with as on at by it that this be from which"
COMMON = {*_COMMON.split(" ")}
GIVEN_AWAY = re.compile(r"\b(rationale|explanation|solution)\s*:", re.IGNORECASE)


def stray(gold: str) -> str | None:
    """Why nobody says this gold as it is written, None where somebody may."""
    marks, inches = gold.count('"'), len(re.findall(r'\d"', gold))
    if (marks % 2 and (marks - inches) % 2) or gold.count("\u201c") != gold.count("\u201d"):
        return f"a quote that is never closed: {gold[:60]}"
    return None


def never_right(gold: str, question: str, rule: str) -> str | None:
    """Why no answer of the form that is asked for can be right, None where one can."""
    asks_letter = LETTER_ASKED.search(question) is not None or rule in ("letter", "letter_coin")
    if asks_letter and rule in ("exact", "exact_upper", "letter", "letter_coin"):
        head = re.match(r"\(?[A-Za-z][.):]\s+\S", gold)
        if head:
            return f"a letter is asked for, the gold is {gold[:60]!r}"
        if rule.startswith("letter") and not re.fullmatch("[A-E]", gold):
            return f"a letter A to E is asked for, the gold is {gold[:60]!r}"
    if rule.startswith("iou"):
        try:
            right = score("iou", gold, gold) == 1
        except ValueError:
            right = False
        return None if right else f"the gold is no box: {gold[:60]!r}"
    return stray(gold) if rule.startswith("exact") else None


def options_of(question: str) -> dict[str, str]:
    """Label -> text of the options that stand on lines of their own; without labels they are A, B, C in their order."""
    lettered = dict(OPTION.findall(question))
    if len(lettered) > 1:
        return lettered
    lines = [line.strip() for line in re.split(r"[\n?]", question)[1:]]
    texts = [line for line in lines if line.strip("-") and not line.startswith("#")]
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def guess(question: str) -> str | None:
    """The label of the option that shares most words with what stands behind "Rationale:" or the like, of its square
    root of words; None where nothing of that kind stands there."""
    mark = GIVEN_AWAY.search(question)
    options = options_of(question[: mark.start()]) if mark else {}
    if mark is None or len(options) < 2:
        return None
    told = _words(question[mark.end() :])
    shares = {label: len(_words(text) & told) / math.sqrt(len(_words(text)) or 1) for label, text in options.items()}
    return max(shares, key=lambda label: shares[label])


def _words(text: str) -> set[str]:
    return {*re.findall(r"\w+", text.lower())} - COMMON


def said_outright(question: str, gold: str) -> bool:
    """Whether a prompt says the answer: 'The answer is B.', with nothing behind it in its line."""
    told = re.escape(gold.strip(" ."))
    return (
        re.search(rf"\banswer\s*(?:is|:)\s*\(?{told}\)?\s*[.!]?\s*$", question, re.IGNORECASE | re.MULTILINE)
        is not None
    )
