"""Put the outputs of the checked cells, from the last quick run, into the committed notebooks and strip all others.

make reproduce && .venv/bin/python tests/refresh_notebooks.py
"""

import nbformat
from notebook_form import CHECKED, discover, tags

from ddlib import ROOT


def refresh(committed: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> None:
    """Give each checked cell of `committed` what the cell of the same id printed in `executed`; clear the rest."""
    by_id = {cell.id: cell for cell in executed.cells}
    for cell in committed.cells:
        if cell.cell_type != "code":
            continue
        kept = CHECKED in tags(cell)
        cell.outputs = joined(by_id[cell.id].outputs) if kept else []
        cell.execution_count = by_id[cell.id].execution_count if kept else None


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


def main() -> None:
    """Refresh every notebook that has been executed."""
    for path in discover(ROOT):
        executed = ROOT / "runs" / "notebooks" / path.parent.name / f"{path.stem}.quick.ipynb"
        notebook = nbformat.read(path, nbformat.NO_CONVERT)
        refresh(notebook, nbformat.read(executed, nbformat.NO_CONVERT))
        nbformat.write(notebook, path)
        print(f"refreshed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
