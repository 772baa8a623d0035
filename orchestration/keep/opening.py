"""Which kind of folder a path or a URI names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestration.keep.files import Folder, LocalFolder


def open_folder(where: str | Path) -> Folder:
    """A folder by path, as file:// too, or an object store's by URI. Raises ValueError for a URI that names none."""
    text = str(where)
    if "://" not in text:
        return LocalFolder(text)
    if text.startswith("file://"):
        return LocalFolder(unquote(urlsplit(text).path))
    from orchestration.keep.object_folder import ObjectFolder  # a sweep in folders does without its library

    return ObjectFolder(text)
