"""Notebooks, and texts of theirs, as HTML: nbconvert's own conversion with equations as MathML."""

import re
from typing import Any

from jinja2 import pass_context
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from ddlib.report.site.equations import mathml
from ddlib.report.site.runs import Run

PARAMETERS = "parameters"
"""The anchor of a notebook's cell of parameters, as its tag."""

SEE = "*What to see.*"
DEVIATIONS = re.compile(r"^## Deviations from the paper\s*$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class _Renderer(IPythonRenderer):
    """nbconvert's renderer of Markdown, with MathML in place of the LaTeX that a script would set."""

    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def inline_math(self, body: str) -> str:
        return mathml(body)


def rendered(source: str) -> Markup:
    """Markdown as HTML."""
    return Markup(MarkdownWithMath(renderer=_Renderer(escape=False, exclude_anchor_links=True)).render(source))


def inline(source: str) -> Markup:
    """A line of Markdown as HTML, without a paragraph around it."""
    return Markup(re.sub(r"^<p>|</p>\s*$", "", rendered(source)))


class _Exporter(HTMLExporter):
    """nbconvert's exporter of HTML: the body alone, for a page of ours."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return rendered(source)


def body(notebook: NotebookNode, title: str) -> Markup:
    """A notebook as HTML, without prompts; pictures are embedded, and described as far as a program can.

    Args:
        title: of the notebook, for the descriptions.
    """
    notebook = _tidied(notebook)
    exporter = _Exporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, embed_images=True
    )
    found, _ = exporter.from_notebook_node(notebook)
    found = re.sub(r'\salt="No description[^"]*"', "", found)
    found = re.sub(r"<img (?![^>]*\balt=)", f'<img alt="Figure of {Markup.escape(title)}" ', found)
    found = re.sub(r"(?=<table\b)", '<div class="scroll" tabindex="0">', found).replace("</table>", "</table></div>")
    return Markup(found)


def _tidied(notebook: NotebookNode) -> NotebookNode:
    """A copy with an anchor at the parameters, and without what is of no use on a page, such as progress bars."""
    copy = NotebookNode({**notebook, "cells": [NotebookNode(cell) for cell in notebook.cells]})
    for cell in copy.cells:
        if PARAMETERS in cell.metadata.get("tags", []):
            cell["id"] = PARAMETERS
        if cell.cell_type == "code":
            cell["outputs"] = [out for out in cell.outputs if not _is_passing(out)]
    return copy


def _is_passing(output: NotebookNode) -> bool:
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or output.output_type == "stream" and output.get("name") == "stderr"


def to_see(run: Run, what: str) -> Markup | None:
    """The paragraph *What to see.* below the figure `what` in the run's notebook; None where there is none."""
    cells = run.notebook.cells if run.notebook else []
    for cell, after in zip(cells, cells[1:], strict=False):
        if cell.cell_type == "code" and f'.{what}"' in cell.source and after.source.startswith(SEE):
            return rendered(after.source.removeprefix(SEE).strip().split("\n\n")[0])
    return None


def deviations(run: Run) -> Markup | None:
    """The notebook's list of deviations from the paper; None where it has none."""
    cells = run.notebook.cells if run.notebook else []
    found = next(filter(None, (DEVIATIONS.search(c.source) for c in cells if c.cell_type == "markdown")), None)
    return rendered(found[1].strip()) if found else None


def claimed(run: Run) -> Markup | None:
    """The claim that the notebook begins with; None where it states none."""
    first = run.notebook.cells[0].source if run.notebook else ""
    found = re.search(r"^\*\*Claim\.\*\*\s*(.*?)(?=\n\n|\Z)", first, re.MULTILINE | re.DOTALL)
    return rendered(found[1]) if found else None


def code_style() -> str:
    """The style sheet of highlighted code, for a light page and for a dark one."""
    light, dark = (HtmlFormatter(style=name) for name in ("friendly", "github-dark"))
    told = '@media (prefers-color-scheme: dark) { :root:not([data-theme="light"]) {\n'
    parts = [light.get_style_defs(".highlight"), told + dark.get_style_defs(".highlight") + "\n} }"]
    return "\n".join([*parts, dark.get_style_defs('[data-theme="dark"] .highlight')]) + "\n"
