"""The whole page: header, contents, sections, and the style sheet."""

from __future__ import annotations

import html

from orchestration.report.context import Context
from orchestration.report.sections import sections

CSS = """
:root { --ink: #1f2328; --soft: #5c6570; --line: #dfe3e8; --wash: #f6f7f9; --blue: #0b5c94; --red: #a8431a;
  --page: #fff; --rule: #aab2bb; --chosen: #fff8e8; --tag: #e4e7eb; --star: #f3dfae; --on-star: #5f4708;
  color-scheme: light dark; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e3e6ea; --soft: #9aa4b0; --line: #363d46;
  --wash: #22272e; --blue: #6cb6f0; --red: #f0956c; --page: #181b20; --rule: #5c6672; --chosen: #332c18; --tag: #363d46;
  --star: #57471b; --on-star: #f3dfae; } figure img { padding: 6px; border-radius: 6px; background: #fff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI",
  "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1064px; margin: 0 auto; padding: 0 32px; }
header { padding-top: 48px; }
.kind { margin: 0; color: var(--soft); font-size: 14px; letter-spacing: .04em; text-transform: uppercase; }
h1 { margin: .1em 0 .2em; font-size: 36px; line-height: 1.2; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 0 0 .6em; padding-top: 1.1em; font-size: 22px; font-weight: 650; border-top: 1px solid var(--line); }
section { margin-top: 2.4em; }
p { max-width: 76ch; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 18px 0 0;
  padding: 0; font-size: 14px; }
a { color: var(--blue); text-decoration: none; }
a:hover { text-decoration: underline; }
.headline { font-size: 19px; line-height: 1.45; padding: 14px 18px; border-left: 4px solid var(--blue);
  background: var(--wash); }
.answer { display: grid; grid-template-columns: max-content 1fr; gap: 8px 22px; max-width: 100ch; margin: 0; }
.answer dt { color: var(--soft); }
.answer dd { margin: 0; overflow-wrap: anywhere; }
.answer dt:nth-of-type(2), .answer dd:nth-of-type(2) { font-size: 19px; font-weight: 650; color: var(--ink); }
.note { max-width: 92ch; }
.note, figcaption { color: var(--soft); font-size: 14px; }
.missing { color: var(--soft); font-size: 14px; font-style: italic; }
.scroll { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-size: 14px; line-height: 1.4; }
thead th { text-align: left; vertical-align: bottom; font-weight: 600; border-bottom: 2px solid var(--rule); }
th, td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody th { text-align: left; font-weight: 500; max-width: 19em; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
.numbers td { white-space: nowrap; }
.numbers thead th { min-width: 5.5em; }
.numbers thead th:first-child { min-width: 11em; }
.numbers tr { background: var(--page); }
.numbers th:first-child { position: sticky; left: 0; background: inherit; }
.words { width: 100%; }
.words td { overflow-wrap: anywhere; }
.words tbody th { padding-right: 28px; }
.pairs tbody th { width: 1%; }
.findings { table-layout: fixed; }
.findings thead th:nth-child(1) { width: 38%; white-space: normal; }
.findings thead th:nth-child(3) { width: 12em; }
.interval { color: var(--soft); }
.numbers tr.reference, tr.reference { background: var(--wash); }
.numbers tr.chosen, tr.chosen { background: var(--chosen); }
.tag { margin-left: 4px; padding: 1px 6px; border-radius: 8px; background: var(--tag); color: var(--soft);
  font-size: 12px; }
.tag.star { background: var(--star); color: var(--on-star); }
.verdict.better { color: var(--blue); font-weight: 600; }
.verdict.worse { color: var(--red); font-weight: 600; }
.verdict.open { color: var(--soft); }
figure { margin: 1.4em 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .5em; max-width: 100ch; }
.gallery { display: flex; flex-wrap: wrap; gap: 8px 20px; }
.gallery figure { margin: .6em 0; display: flex; flex-direction: column-reverse; justify-content: flex-end; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
details { margin-top: 1em; } summary { cursor: pointer; color: var(--blue); font-size: 14px; }
details pre { padding: 14px 18px; background: var(--wash); margin-top: .6em; }
footer { margin-top: 4em; padding-bottom: 48px; color: var(--soft); font-size: 14px; }
@media print { section { break-inside: avoid-page; } nav { display: none; } .scroll { overflow: visible; } }
@media (max-width: 560px) { header, main, footer { padding: 0 16px; } .answer { display: block; }
  .answer dd { margin-bottom: .7em; } }
"""


def render(context: Context) -> str:
    """The report as one HTML document that loads nothing else."""
    name = html.escape(str(context.results.sweep.get("name", context.results.folder.name)))
    built = [(f"part-{number}", title, body) for number, (title, body) in enumerate(sections(context), start=1)]
    contents = "".join(f'<li><a href="#{anchor}">{html.escape(title)}</a></li>' for anchor, title, _ in built)
    body = "".join(
        f'<section id="{anchor}"><h2>{html.escape(title)}</h2>{content}</section>\n' for anchor, title, content in built
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · sweep report</title>
<style>{CSS}</style>
</head>
<body>
<header>
<p class="kind">Continual instruction tuning · sweep report</p>
<h1>{name}</h1>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
<main>
{body}</main>
<footer>The numbers behind this page: tables.csv and tables.tex beside it (the table of settings); trials.parquet,
accuracy.parquet and stages.parquet in the RUN's folder (everything).</footer>
</body>
</html>
"""
