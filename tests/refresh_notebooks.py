"""Put the outputs of the last quick run into the committed notebooks, so that a reader who runs nothing sees them.

make reproduce && .venv/bin/python tests/refresh_notebooks.py
"""

import base64
import io

import nbformat
from notebook_form import CHECKED, tags
from PIL import Image

from ddlib import ROOT
from ddlib.study import notebooks

COLOURS = 24
"""Of a picture; the whole one is in figures/."""


def refresh(committed: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> None:
    """Give each cell of `committed` the outputs of the cell of the same id in `executed`, but for the machine's own.

    A checked cell keeps them as they are; in the others pictures are made small, and the plain text of what has a
    richer form is left out.
    """
    by_id = {cell.id: cell for cell in executed.cells}
    for cell in committed.cells:
        if cell.cell_type == "code":
            outputs = joined([output for output in by_id[cell.id].outputs if not of_the_machine(output)])
            cell.outputs = outputs if CHECKED in tags(cell) else [shortened(output) for output in outputs]
            cell.execution_count = by_id[cell.id].execution_count if outputs else None


def of_the_machine(output: nbformat.NotebookNode) -> bool:
    """Whether an output tells of the machine alone: how far work was, a warning, or the files of a figure."""
    return output.get("name") == "stderr" or "PosixPath(" in output.get("data", {}).get("text/plain", "")


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The same outputs with what was printed in pieces, as time would have it, made one."""
    whole: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            whole.append(output)
    return whole


def shortened(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output in its richest form alone, a picture small."""
    data = output.get("data", {})
    if "image/png" in data:
        data["image/png"] = small(data["image/png"])
    if len(data) > 1:
        data.pop("text/plain", None)
    return output


def small(png: str) -> str:
    """A picture in base64 in few colours; the same one always gives the same text."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Refresh every notebook."""
    for name in notebooks.names():
        path, executed = notebooks.path_of(name), ROOT / "runs" / "notebooks" / f"{name}.quick.ipynb"
        notebook = nbformat.read(path, nbformat.NO_CONVERT)
        refresh(notebook, nbformat.read(executed, nbformat.NO_CONVERT))
        nbformat.write(notebook, path)
        print(f"refreshed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
