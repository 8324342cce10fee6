"""What a notebook measures that is no accuracy of a cell: tables of numbers, with where they come from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddlib.store.files import write_whole

KEYS = {"tables", "modules", "provenance"}


@dataclass(frozen=True)
class Measurements:
    """Named tables of one run of a notebook.

    tables: name -> rows, each a mapping from columns to plain values.
    modules: of ddlib, dotted, whose code the numbers depend on.
    provenance: where the numbers come from; "code" is the fingerprint of `modules`, "parameters" of the notebook's.

    Raises:
        ValueError: something is no plain JSON.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    modules: tuple[str, ...]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("tables", "provenance"):
            try:
                object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name), allow_nan=False)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} of measurements is not plain JSON: {error}") from error
        object.__setattr__(self, "modules", tuple(self.modules))


def write_measurements(measured: Measurements, path: str | Path) -> Path:
    """Write them as JSON, whole or not at all, a row a line; missing folders are made.

    Raises:
        OSError: the folder cannot be written; the message names the path.
    """
    tables = [f"  {json.dumps(name)}: [\n{_lines(rows)}\n  ]" for name, rows in measured.tables.items()]
    text = '{\n "tables": {\n' + ",\n".join(tables) + "\n },\n"
    text += f' "modules": {json.dumps(measured.modules)},\n'
    text += f' "provenance": {json.dumps(measured.provenance, sort_keys=True, allow_nan=False)}\n}}\n'
    return write_whole(path, text.encode())


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return ",\n".join("   " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)


def read_measurements(path: str | Path) -> Measurements | None:
    """What `write_measurements` wrote; None where the file holds records instead.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not whole, or neither; the message names the path.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole: {error}") from error
    if isinstance(content, list):
        return None
    if not isinstance(content, dict) or content.keys() != KEYS:
        raise ValueError(f"{path} holds neither records nor measurements, which have {', '.join(sorted(KEYS))}")
    return Measurements(**content)
