"""The form every notebook has: where it keeps its parameters, its text, its code and its outputs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from ddlib.study.parameters import PARAMETERS, literals

CHECKED = "nbval-check-output"
UNCHECKING = {"nbval-skip", "nbval-raises-exception", "nbval-ignore-output", "raises-exception"}
PICTURE = 60_000  # characters of a picture in base64
ABSOLUTE = re.compile(r"^(/[\w.]|~/|[A-Za-z]:[\\/])")


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def faults(path: Path) -> list[str]:
    """What a notebook breaks, as sentences."""
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"not a valid notebook: {error.message}"]
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        return [f"nbformat {notebook.nbformat}.{notebook.nbformat_minor} has no cell ids; 4.5 has them"]
    checks = (_head, _parameters, _settings, _code, _outputs, _sections)
    return [fault for check in checks for fault in check(notebook)]


def _head(notebook) -> Iterator[str]:
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell is no markdown that begins with a title, '# ...'"
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"the kernel is {kernel!r}, not 'python3'"
    if notebook.metadata.get("language_info", {}).get("file_extension") != ".py":
        yield "language_info says no file_extension '.py': nbconvert would write the script as .txt"


def _parameters(notebook) -> Iterator[str]:
    where = [i for i, cell in enumerate(notebook.cells) if "parameters" in tags(cell)]
    if where != [1]:
        yield f"cells {where} are tagged 'parameters'; the second cell alone must be"
        return
    try:
        literals(notebook.cells[1].source)
    except ValueError as error:
        yield f"the parameters cell: {error}"


def _settings(notebook) -> Iterator[str]:
    third = [cell.source for cell in notebook.cells[2:3] if cell.cell_type == "code"]
    if not any(re.search(r"\bstudy\.settings\(globals\(\)", source) for source in third):
        yield "the third cell does not call study.settings(globals())"
    for node in ast.walk(ast.parse(third[0] if third else "")):
        names = [alias.asname or alias.name for alias in getattr(node, "names", ())]
        if isinstance(node, ast.Import | ast.ImportFrom) and (taken := PARAMETERS.keys() & {*names}):
            yield f"the third cell imports {min(taken)}, which is the name of a parameter"


def _code(notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        for tag in UNCHECKING & set(tags(cell)):
            yield f"cell {number} is tagged {tag}: nothing is left unchecked"
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            yield f"cell {number} is no plain Python (a shell command or a magic?)"
            continue
        yield from (f"cell {number} {what}" for node in ast.walk(tree) if (what := _forbidden(node)))


def _forbidden(node: ast.AST) -> str:
    """What makes a piece of code no business of a notebook, or nothing."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return f"defines {name}; definitions belong in ddlib"
        case ast.Import(names=[ast.alias(name=name), *_]) | ast.ImportFrom(module=str(name)):
            return "imports subprocess; processes belong in ddlib" if name == "subprocess" else ""
        case ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen"):
            return "runs a shell command"
        case ast.Constant(value=str(text)) if ABSOLUTE.match(text):
            return f"holds the absolute path {text!r}"
    return ""


def _outputs(notebook) -> Iterator[str]:
    """What is checked is text; what a reader sees besides has no warnings, and its pictures are small."""
    checked = 0
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        ran = bool(cell.outputs) and cell.execution_count is not None
        if any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {number} keeps stderr or an error"
        if any("PosixPath(" in output.get("data", {}).get("text/plain", "") for output in cell.outputs):
            yield f"cell {number} keeps a path of the machine that it was run on"
        pictures = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        if any(len(picture) > PICTURE for picture in pictures):
            yield f"cell {number} keeps a picture of more than {PICTURE} characters; refresh_notebooks.py shrinks it"
        if CHECKED in tags(cell):
            checked += 1
            if not ran:
                yield f"cell {number} is tagged {CHECKED} but was not run: nbval would compare nothing"
            if pictures:
                yield f"cell {number} keeps a picture, which no check can hold it to"
    if not checked:
        yield f"no cell is tagged {CHECKED}: nothing of what the notebook shows is checked"


def _sections(notebook) -> Iterator[str]:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    titles = re.findall(r"^#{1,6}\s+(.+?)\s*$", text, flags=re.MULTILINE)
    if not titles or not titles[-1].startswith("Provenance"):
        yield f"the last section is {titles[-1] if titles else None!r}, not 'Provenance'"
    if not any(title.startswith("Deviations") for title in titles):
        yield "no section is titled 'Deviations'"
