"""What sections are made of, as HTML: paragraphs, notes on what is missing, tables."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from orchestration.report.context import Context

#: a section's title and HTML
Section = tuple[str, str]
#: makes a section; None where the run has nothing to do with it
Builder = Callable[[Context], Section | None]


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def missing(text: str) -> str:
    """A sentence that says why something is not there."""
    return paragraph(text[:1].upper() + text[1:] + ("" if text.endswith(".") else "."), "missing")


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "", classes: Sequence[str] = ()) -> str:
    """A table of cells that are HTML already; `classes` gives each row's class."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = []
    for i, row in enumerate(rows):
        first, *rest = row
        name = f' class="{classes[i]}"' if classes and classes[i] else ""
        body.append(f'<tr{name}><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>")
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def html_rows(rows: Sequence[tuple[str, str]], kind: str) -> str:
    """A list of labels, each with what there is to say; cells are HTML already."""
    body = "".join(f"<dt>{label}</dt><dd>{text}</dd>" for label, text in rows)
    return f'<dl class="{kind}">{body}</dl>'
