"""What form an answer has, whatever it says."""

from __future__ import annotations

import re


def shape(answer: str) -> str:
    """letter, digit, word, phrase (two to four words), sentence, box, list, or nothing."""
    text = answer.strip()
    if not text:
        return "nothing"
    if re.fullmatch(r"\[?\s*-?[\d.]+(\s*,\s*-?[\d.]+){3}\s*\]?", text):
        return "box"
    if re.fullmatch(r"[A-Za-z][.)]?", text):
        return "letter"
    if re.fullmatch(r"-?\d[\d,.]*%?", text):
        return "digit"
    if text.startswith("[") or text.count(",") >= 2:
        return "list"
    words = len(text.split())
    return "word" if words == 1 else "phrase" if words <= 4 else "sentence"
