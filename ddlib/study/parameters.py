"""The parameters of notebooks, checked before anything runs.

papermill runs a misspelt parameter to the end with exit code 0, and YAML reads 1e-3 as text.  `settings` refuses both.
"""

import ast
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import yaml

from ddlib import PROFILES, ROOT
from ddlib.methods.contract import nearest, number


@dataclass(frozen=True)
class Parameter:
    """What one notebook parameter may be.

    kind: int, float, str, bool or dict; with `many`, a non-empty list of such.
    low: smallest value allowed (with `above`, the value must lie above it).
    choices: the values allowed, or () for any.
    named: whether a name and a dot may stand before one of the choices, as in "cifar100.paper".
    optional, filled: whether None is allowed, and whether an empty mapping is refused.
    numbered: whether the names in a mapping may be numbers.
    """

    kind: type
    many: bool = False
    low: float | None = None
    above: bool = False
    choices: tuple = ()
    named: bool = False
    optional: bool = False
    filled: bool = False
    numbered: bool = False


PARAMETERS = {
    "profile": Parameter(str, choices=PROFILES, named=True),
    "dataset": Parameter(str),
    "reference_dataset": Parameter(str),
    "ipcs": Parameter(int, many=True, low=1),
    "ipc": Parameter(int, low=1),
    "methods": Parameter(dict, filled=True),
    "factors": Parameter(dict, filled=True),
    "powers": Parameter(float, many=True, low=0.0, above=True),
    "repeats": Parameter(int, low=1),
    "seeds": Parameter(int, many=True, low=0),
    "network": Parameter(dict),
    "evaluation": Parameter(dict),
    "space": Parameter(dict),
    "experts": Parameter(dict),
    "steps": Parameter(int, many=True, low=1),
    "batches": Parameter(int, many=True, low=1),
    "step_sizes": Parameter(float, many=True, low=0.0, above=True),
    "expert_epochs": Parameter(int, low=1),
    "starts": Parameter(int, many=True, low=0),
    "residuals": Parameter(str, many=True, choices=("x0", "eq7", "none")),
    "draws": Parameter(int, low=1),
    "memory_gb": Parameter(float, low=0.0, above=True, optional=True),
    "device": Parameter(str),
    "precision": Parameter(str, choices=("float32", "bfloat16")),
    "compiled": Parameter(bool),
    "budget_hours": Parameter(float, low=0.0, optional=True),
}
"""Every parameter that a notebook of this project may declare."""

AUTO = "auto"
"""The device that is the first GPU where there is one, else the CPU."""

OWN_DATA = ("folder", "size", "channels", "holdout", "at_least")
"""What `dataset` may say in place of a name; see `ddlib.data.own.from_folder`."""

IN_A_NOTEBOOK = "In"
"""IPython keeps the sources of the executed cells under this name."""

CALL = "settings(globals())"
"""What a notebook calls once its parameters are assigned."""


def settings(namespace: Mapping[str, Any]) -> SimpleNamespace:
    """The parameters of a notebook as attributes, checked: `study.settings(globals())` in the third cell.

    What the notebook's parameters cell assigns, which assigns `profile`, must be known parameters.  What papermill
    injects must stand in that cell too, and so must what a reader's cells between it and this call assign, where it is
    a parameter or nearly one by its name.  Of a script, such as nbconvert makes of a notebook, these names are taken,
    and of a plain mapping all.

    A ValueError names an unknown parameter (the nearest known one is offered), a wrong type, a value out of range.
    """
    names, changed = _assigned(namespace.get(IN_A_NOTEBOOK, []))
    for name in sorted(changed):
        declared(name, sorted(names))
    if not names:
        names = set(namespace)
        if IN_A_NOTEBOOK in namespace or "__name__" in namespace:  # a script, or a kernel without history, as nbval's
            code = {name for name, value in namespace.items() if callable(value) or isinstance(value, ModuleType)}
            names = set(filter(_meant, names - code))
    values = {declared(name, PARAMETERS): namespace[name] for name in sorted(names)}
    if isinstance(values.get("dataset"), Mapping):
        values["dataset"] = own_data(values["dataset"])
    return SimpleNamespace(**{name: checked(name, value, PARAMETERS[name]) for name, value in values.items()})


def own_data(dataset: Mapping[str, Any]) -> str:
    """The name of the data set in a folder of one's own: {"folder": "photos", "size": 32}."""
    from ddlib.data import own  # torch takes a second to import, and other parameters do without

    if not isinstance(dataset.get("folder"), str):
        raise ValueError(f"dataset={dataset!r}; it must be a name, or a mapping with a folder: {', '.join(OWN_DATA)}")
    ways = {declared(name, OWN_DATA): _plain(value) for name, value in dataset.items() if name != "folder"}
    try:
        return own.named(ROOT / Path(dataset["folder"]).expanduser(), **ways)
    except (OSError, ValueError) as error:
        raise ValueError(f"dataset={dataset!r}: {error}") from error


def checked(name: str, value: Any, parameter: Parameter) -> Any:
    """`value` if `parameter` allows it, else a ValueError; an integer turns into a float where a float is asked for.

    Numbers and arrays of numpy are taken as Python's own.
    """
    value = _plain(value)
    if value is None and parameter.optional:
        return None
    if name == "device":
        value = device(value)
    if not parameter.many:
        return _checked_value(name, value, parameter)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{name}={value!r}; it must be a non-empty list of {parameter.kind.__name__}")
    entries = tuple(_checked_value(name, entry, parameter) for entry in value)
    if len(set(entries)) < len(entries):
        raise ValueError(f"{name}={value!r}; every entry may stand in it once")
    return entries


def device(value: Any) -> Any:
    """The device that `device` names, in place of "auto"; under SLURM that is what the machine that submits has."""
    if value != AUTO:
        return value
    import torch  # takes a second, and the rest of this module needs it not

    return "cuda" if torch.cuda.is_available() else "cpu"


def _checked_value(name: str, value: Any, parameter: Parameter) -> Any:
    value = number(name, value, parameter.kind) if parameter.kind in (int, float) else value
    if not isinstance(value, parameter.kind):
        raise ValueError(f"{name}={value!r} is {type(value).__name__}; it must be {parameter.kind.__name__}")
    if parameter.filled and not value:
        raise ValueError(f"{name}={value!r}; it must not be empty")
    if parameter.kind is dict and not parameter.numbered:
        for wrong in [each for each in value if not isinstance(each, str)][:1]:
            raise ValueError(f"{name} has {wrong!r} for a name; it must be a text")
    before, dot, choice = value.rpartition(".") if parameter.named else ("", "", value)
    if parameter.choices and (choice not in parameter.choices or (dot and not before.isidentifier())):
        named = ", where a name and a dot may stand before it" if parameter.named else ""
        raise ValueError(f"{name}={value!r}; it must be one of {', '.join(parameter.choices)}{named}")
    if parameter.low is not None and (value < parameter.low or (parameter.above and value == parameter.low)):
        raise ValueError(f"{name}={value!r}; it must be {'>' if parameter.above else '>='} {parameter.low}")
    return value


def _plain(value: Any) -> Any:
    """`value` with numbers and arrays of numpy, in mappings and lists too, as Python's own."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _meant(name: str) -> bool:
    """Whether a name that a reader assigns is a parameter, or nearly one."""
    return name in PARAMETERS or bool(nearest(name, PARAMETERS))


def _assigned(sources: Sequence[str]) -> tuple[set[str], set[str]]:
    """The names that the parameters cell executed last assigns, and those that other cells before the call do.

    The parameters cell assigns `profile` among others; a reader who mends a misspelt name there and runs it again is
    not held to the earlier one.
    """
    own: set[str] = set()
    changed: set[str] = set()
    called = False
    for source in sources:
        names = _names(source)
        if source.lstrip().startswith("# Parameters"):  # the cell that papermill injects
            changed |= names
        elif names > {"profile"}:
            own, changed, called = names, set(), False
        elif own and not called:
            changed |= set(filter(_meant, names))
        called = called or CALL in source
    return own, changed


def _names(source: str) -> set[str]:
    """The single names that a cell assigns before it calls `settings`; none where it is no plain Python."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return set()
    before = itertools.takewhile(lambda statement: CALL not in ast.unparse(statement), body)
    return {name for statement in before for name in _assignment(statement)}


def _assignment(statement: ast.stmt) -> dict[str, ast.expr]:
    """The single name that a statement assigns -> its value; empty for any other statement."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return {name: value}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return {name: value}
    return {}


def literals(source: str) -> dict[str, Any]:
    """Name -> value of a cell that assigns literals alone, beside imports; a ValueError names the line of any other."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:  # IPython's own, such as %matplotlib
        raise ValueError(f"line {error.lineno} is no plain Python: {error.msg}") from error
    values = {}
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        try:
            ((name, value),) = _assignment(statement).items()
            values[name] = ast.literal_eval(value)
        except ValueError as error:
            text = f"line {statement.lineno}, `{ast.unparse(statement)}`,"
            raise ValueError(f"{text} assigns no literal, and is known only when the notebook runs") from error
    return values


def of_notebook(path: Path) -> dict[str, Any]:
    """The literals of the notebook's cell tagged `parameters`."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    try:
        return literals("".join(cell["source"]))
    except ValueError as error:
        raise ValueError(f"{path.parent.name}/{path.name}, parameters cell: {error}") from error


def read_params(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of parameters; a ValueError where it holds none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}; it must be a mapping from parameters to values")
    return values


def declared(name: str, known: Collection[str]) -> str:
    """`name`, if it is one of the `known` parameters; else a ValueError that offers the nearest."""
    if name not in known:
        raise ValueError(f"unknown parameter {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    return name
