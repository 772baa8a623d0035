"""Folders that results go to, and files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from mcit_core.yaml_document import SpecError


def check_folder(chosen: Path, option: str) -> None:
    """Refuse what cannot become a folder to write to. Raises SpecError, which names `option`."""
    for folder in (chosen, *chosen.parents):
        if folder.exists():
            if not folder.is_dir():
                raise SpecError(f"{option} {chosen}: {folder} is a file; expected a folder")
            if not os.access(folder, os.W_OK):
                raise SpecError(f"{option} {chosen}: {folder} cannot be written to")
            return


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name first, so that a reader never finds half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
