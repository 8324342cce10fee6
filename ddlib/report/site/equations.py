"""Equations as MathML, which browsers show without any script."""

import html
import re

from latex2mathml.converter import convert

SPELT = {
    r"\lVert": r"\Vert ",
    r"\rVert": r"\Vert ",
    r"\lvert": r"\vert ",
    r"\rvert": r"\vert ",
    r"\lfloor": "⌊",
    r"\rfloor": "⌋",
    r"\lceil": "⌈",
    r"\rceil": "⌉",
    r"\arg": r"\operatorname{arg}",
    r"\mathbb 1": r"\mathbb{1}",
    r"\mathcal L": r"\mathcal{L}",
    r"\mathcal U": r"\mathcal{U}",
}
"""What the converter does not know, or not after `\\big` -> what stands for it."""

SIZES = re.compile(r"\\([bB]igg?)[lrm]?(?![a-zA-Z])")
"""Sizes of delimiters, which MathML stretches by itself."""

COMMAND = re.compile(r"\\[a-zA-Z]+")


def mathml(latex: str, *, block: bool = False) -> str:
    """An equation as a MathML element; as its LaTeX source, marked so, where it cannot be converted.

    Args:
        latex: without the dollars.
        block: whether it stands on lines of its own.
    """
    text = SIZES.sub("", latex.strip())
    for then, now in SPELT.items():
        text = re.sub(re.escape(then) + r"(?![a-zA-Z])", lambda _, now=now: now, text)
    try:
        found = convert(text, display="block" if block else "inline")
    except Exception:  # of many kinds, none of which the converter documents
        found = ""
    if not found or COMMAND.search(re.sub(r"<[^>]*>", "", found)):
        return f'<code class="latex">{html.escape(latex.strip())}</code>'
    return f'<div class="equation">{found}</div>' if block else found
