"""Every notebook has the form of the design, found by discovery; nbval runs them, this reads them."""

import ast
import base64
import io
import socket
import tokenize

import nbformat
import notebook_form as form
import pytest
import refresh_notebooks
from jupyter_client.connect import LocalPortCache
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill import inspect_notebook
from PIL import Image

from ddlib.study import notebooks
from ddlib.study.parameters import PARAMETERS


@pytest.mark.parametrize("name", notebooks.names())
def test_form(name):
    assert form.faults(notebooks.path_of(name)) == []


@pytest.mark.parametrize("notebook", notebooks.names())
def test_papermill_tells_every_parameter_with_its_type_and_its_whole_comment(notebook):
    """What `papermill --help-notebook` prints; it reads line by line, and cuts what has an equals sign too many."""
    path = notebooks.path_of(notebook)
    (cell,) = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
    tokens = tokenize.generate_tokens(io.StringIO(cell.source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    inferred = inspect_notebook(path)
    assert list(inferred) == [node.targets[0].id for node in ast.parse(cell.source).body]
    for node in ast.parse(cell.source).body:
        name = node.targets[0].id
        (comment,) = [text for line, text in comments.items() if node.lineno <= line <= node.end_lineno]
        kind = type_name(PARAMETERS[name])
        assert inferred[name]["inferred_type_name"] == kind
        assert comment == f"# type: {kind}  {inferred[name]['help']}" and len(inferred[name]["help"]) > 10


def type_name(parameter):
    """A parameter's type as its comment says it."""
    name = f"list[{parameter.kind.__name__}]" if parameter.many else parameter.kind.__name__
    return f"{name}|None" if parameter.optional else name


def sound():
    """A notebook that breaks nothing."""
    printed = new_output("stream", name="stdout", text="0.93\n")
    checked = new_code_cell("print(settings.lr)", outputs=[printed], execution_count=4)
    checked.metadata["tags"] = [form.CHECKED]
    parameters = new_code_cell('dataset = "digits"  # name\nlr = 0.1  # learning rate, > 0')
    parameters.metadata["tags"] = ["parameters"]
    cells = [
        new_markdown_cell("# A claim\n\n" + "Why it is believed, and what it would take to doubt it. " * 5),
        parameters,
        new_code_cell("from ddlib import study\n\nsettings = study.settings(globals())"),
        checked,
        new_markdown_cell("## Deviations from the paper\n\nNone."),
        new_markdown_cell("## Provenance"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    language = {"name": "python", "file_extension": ".py"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": language})


def faults_of(notebook, folder):
    path = folder / "experiment.ipynb"
    nbformat.write(notebook, path)
    return form.faults(path)


def test_a_sound_notebook_passes(tmp_path):
    assert faults_of(sound(), tmp_path) == []


def set_source(index, source):
    """A change: the cell's source."""
    return lambda notebook: notebook.cells[index].__setitem__("source", source)


def set_tags(index, *tags):
    """A change: the cell's tags."""
    return lambda notebook: notebook.cells[index].metadata.__setitem__("tags", list(tags))


PICTURE, LARGE = {"image/png": "iVBORw0KGgo="}, {"image/png": "A" * 60_001}
CHANGES = {
    "begins with a title": set_source(0, "A claim without a title. " * 20),
    "the kernel is 'julia'": lambda n: n.metadata.kernelspec.__setitem__("name", "julia"),
    "nbconvert would write the script as .txt": lambda n: n.metadata.language_info.pop("file_extension"),
    "are tagged 'parameters'": set_tags(2, "parameters"),
    "cells [] are tagged": set_tags(1),
    "assigns no literal": set_source(1, 'dataset = "digits"  # name\nlr = 1 / 10  # rate'),
    "does not call study.settings": set_source(2, "settings = None"),
    "imports methods, which is the name": set_source(
        2, "from ddlib import methods, study\n\nsettings = study.settings(globals())"
    ),
    "cell 4 is no plain Python": set_source(3, "!ls"),
    "cell 4 is no plain Python (": set_source(3, "%matplotlib inline"),
    "cell 4 defines f": set_source(3, "def f():\n    pass"),
    "cell 4 defines C": set_source(3, "class C:\n    pass"),
    "imports subprocess": set_source(3, "import subprocess"),
    "runs a shell command": set_source(3, "os.system(dataset)"),
    "the absolute path": set_source(3, "print('/opt/data')"),
    "nothing is left unchecked": set_tags(3, form.CHECKED, "nbval-skip"),
    "nbval would compare nothing": lambda n: n.cells[3].__setitem__("execution_count", None),
    "keeps a picture, which": lambda n: n.cells[3].outputs.append(new_output("display_data", data=PICTURE)),
    "more than 60000 characters": lambda n: n.cells[2].outputs.append(new_output("display_data", data=LARGE)),
    "keeps stderr": lambda n: n.cells[3].outputs[0].__setitem__("name", "stderr"),
    "keeps a path of the machine": lambda n: n.cells[2].outputs.append(
        new_output("execute_result", data={"text/plain": "PosixPath('x.png')"})
    ),
    "nothing of what the notebook shows": lambda n: n.cells.pop(3),
    "not 'Provenance'": lambda n: n.cells.append(new_markdown_cell("## And then")),
    "titled 'Deviations'": lambda n: n.cells.pop(4),
    "has no cell ids": lambda n: (n.__setitem__("nbformat_minor", 4), [c.pop("id") for c in n.cells]),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_fault_is_seen(message, tmp_path):
    notebook = sound()
    CHANGES[message](notebook)
    assert any(message in fault for fault in faults_of(notebook, tmp_path))


def test_refreshing_keeps_what_a_reader_sees():
    def ran(*outputs):
        return new_notebook(cells=[new_code_cell("1", outputs=[*outputs], execution_count=7, id="a")])

    buffer = io.BytesIO()
    Image.effect_noise((1000, 500), 50).save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    printed = [new_output("stream", name=name, text=name) for name in ("stdout", "stderr", "stdout")]
    shown = new_output("display_data", data={"image/png": picture, "text/plain": "<Figure>"})
    committed = ran()
    refresh_notebooks.refresh(committed, ran(*printed, shown))
    text, image = committed.cells[0].outputs
    assert text.text == "stdoutstdout" and list(image.data) == ["image/png"] and committed.cells[0].execution_count == 7
    small = Image.open(io.BytesIO(base64.b64decode(image.data["image/png"])))
    assert small.size == (1000, 500) and len(small.getcolors()) <= refresh_notebooks.COLOURS
    assert refresh_notebooks.small(picture) == image.data["image/png"]


def test_a_kernel_whose_port_was_taken_is_started_again(monkeypatch):
    kernel = pytest.importorskip("nbval.kernel")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free, ports = LocalPortCache.find_available_port, [taken.getsockname()[1]]
        monkeypatch.setattr(LocalPortCache, "find_available_port", lambda *of: ports.pop() if ports else free(*of))
        manager, client = kernel.start_new_kernel(kernel_name=":nbval-parent-env")
    client.stop_channels()
    manager.shutdown_kernel()
    assert not ports
