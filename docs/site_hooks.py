"""What MkDocs does not do by itself (`hooks` in mkdocs.yml): pages from outside docs/, and links that leave the site.

The pages are read on a code-hosting page too, so that their links are those of the repository. In the site README,
CONTRIBUTING and CHANGELOG are pages, links to them and from them lead there, and a link to what is in the repository
but not in the site keeps its text alone. A link to nothing stays as it is, and `mkdocs build --strict` refuses it.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
#: file of the repository -> its page in the site
OUTSIDE = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    sources = {page: source for source, page in OUTSIDE.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = FENCE.split(markdown)
    return "".join(part if FENCE.fullmatch(part) else in_site(part, source, page.file.src_uri, files) for part in parts)


def in_site(markdown: str, source: str, page: str, files: Files) -> str:
    """The text with its links as they are in the site; `source` is the repository's file, `page` the site's."""

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        if "://" in target:
            return found[0]
        meant = os.path.normpath(os.path.join(os.path.dirname(source), target))
        there = OUTSIDE.get(meant, meant.removeprefix("docs/"))
        if files.get_file_from_path(there) is not None:
            return f"{picture}[{text}]({os.path.relpath(there, os.path.dirname(page) or '.')}{anchor})"
        return text if (ROOT / meant).exists() else found[0]

    return LINK.sub(link, markdown)
