"""What the pages say in code: their blocks, and the commands in those."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT

PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SIGNS = {"&&", ";", "|", "(", ")", "||", "--"}


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    title: str
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, those of one language or all."""
    found = []
    for indent, kind, title, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        lines = (line.removeprefix(indent) for line in text.splitlines(keepends=True))
        found.append(Block(page, kind, title, "".join(lines)))
    return [block for block in found if language in (None, block.language)]


def commands(text: str) -> list[str]:
    """The simple commands of a shell text, each as one line, its words quoted alike; what stands behind a `--` is one
    of its own, and so is each part of a line with && or brackets. Comments and assignments in front are left out."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();|&")
        lexer.whitespace_split = True
        found.append([])
        for word in lexer:
            if word in SIGNS:
                found.append([])
            elif found[-1] or not re.fullmatch(r"[A-Z_]+=\S*", word):
                found[-1].append(word)
    return [shlex.join(words) for words in found if words]


def page_commands(page: Path) -> list[str]:
    return [command for block in blocks(page, "bash") for command in commands(block.text)]


def inline_commands(page: Path) -> list[str]:
    """Our commands with options that stand in a page's sentences."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"`((?:mcit|python -m (?:mcit_core|orchestration)\.)[^`]* --[^`]+)`", text)
