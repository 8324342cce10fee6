"""Notebooks, and texts of theirs, as HTML: nbconvert's own conversion with equations as MathML."""

import copy
import html
import re
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

PARAMETERS = "parameters"
"""The tag of a notebook's cell of parameters, and its anchor `cell-id=parameters`."""

WIDGET = "application/vnd.jupyter.widget-view+json"
SEE = "*What to see.*"

SPELT = {
    r"\lVert": r"\Vert ", r"\rVert": r"\Vert ", r"\lvert": r"\vert ", r"\rvert": r"\vert ",
    r"\lfloor": "⌊", r"\rfloor": "⌋", r"\lceil": "⌈", r"\rceil": "⌉", r"\arg": r"\operatorname{arg}",
    r"\mathbb 1": r"\mathbb{1}", r"\mathcal L": r"\mathcal{L}", r"\mathcal U": r"\mathcal{U}",
}  # fmt: skip
"""What the converter does not know, or not after `\\big` -> what stands for it."""

SIZES = re.compile(r"\\([bB]igg?)[lrm]?(?![a-zA-Z])")
"""Sizes of delimiters, which MathML stretches by itself."""


def mathml(latex: str, *, block: bool = False) -> str:
    """An equation as MathML, which browsers show without any script; its LaTeX as code where it cannot be converted.

    Args:
        latex: without the dollars.
        block: whether it stands on lines of its own.
    """
    text = SIZES.sub("", latex.strip())
    for command, spelt in SPELT.items():
        text = re.sub(re.escape(command) + r"(?![a-zA-Z])", lambda _, spelt=spelt: spelt, text)
    try:
        element = convert(text, display="block" if block else "inline")
    except Exception:  # of many kinds, none of which the converter documents
        element = ""
    if not element or re.search(r"\\[a-zA-Z]", Markup(element).striptags()):
        return f'<code class="latex">{html.escape(latex.strip())}</code>'
    return f'<div class="equation">{element}</div>' if block else element


class _Renderer(IPythonRenderer):
    """nbconvert's renderer of Markdown, with MathML in place of the LaTeX that a script would set."""

    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def inline_math(self, body: str) -> str:
        return mathml(body)


class _Exporter(HTMLExporter):
    """nbconvert's exporter of HTML with our renderer of Markdown."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return rendered(source)


def rendered(source: str) -> Markup:
    """Markdown as HTML."""
    return Markup(MarkdownWithMath(renderer=_Renderer(escape=False, exclude_anchor_links=True)).render(source))


def body(notebook: NotebookNode, title: str) -> Markup:
    """A notebook as HTML for a page of ours: no prompts, warnings or progress bars; pictures embedded and described.

    Args:
        title: of the notebook, for the descriptions.
    """
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if PARAMETERS in cell.metadata.get("tags", []):
            cell["id"] = PARAMETERS
        if cell.cell_type == "code":
            cell["outputs"] = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
    exporter = _Exporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, embed_images=True
    )
    text, _ = exporter.from_notebook_node(notebook)
    text = re.sub(r'\salt="No description[^"]*"', "", text)
    return scrollable(re.sub(r"<img (?![^>]*\balt=)", f'<img alt="Figure of {html.escape(title)}" ', text))


def scrollable(text: str) -> Markup:
    """HTML whose wide tables scroll by themselves, by keyboard too."""
    text = re.sub(r"(?=<table\b)", '<div class="scroll" tabindex="0">', text)
    return Markup(text.replace("</table>", "</table></div>"))


def claim(introduction: str) -> Markup:
    """The paragraph below the title in a notebook's first cell, which states its claim."""
    _, *paragraphs = introduction.split("\n\n")
    return rendered("".join(paragraphs[:1]))


def to_see(notebook: NotebookNode | None, figure: str) -> Markup:
    """The paragraph *What to see.* below the figure so called; empty where there is none."""
    cells = notebook.cells if notebook else []
    for cell, below in zip(cells, cells[1:], strict=False):
        if cell.cell_type == "code" and f'.{figure}"' in cell.source and below.source.startswith(SEE):
            return rendered(below.source.removeprefix(SEE).partition("\n\n")[0])
    return Markup("")


def code_style() -> str:
    """The style sheet of highlighted code, for a light page and for a dark one."""
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("friendly", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
