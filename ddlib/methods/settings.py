"""Hyper-parameters from plain values: a dataclass filled in, each name and type checked first."""

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints


def number(name: str, value: Any, kind: type) -> Any:
    """`value` as the number it is: int stays int, and becomes float where `kind` is float.

    Raises:
        ValueError: text (YAML reads 1e-3 as text), a truth value, or a fraction where an integer is asked for.
    """
    if isinstance(value, str):
        raise ValueError(f"{name}={value!r} is text, not a number; in YAML write 1.0e-3 with the dot, without quotes")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}={value!r} is {type(value).__name__}; it must be {kind.__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name}={value!r}; it must be finite")
    if kind is int and not isinstance(value, int):
        raise ValueError(f"{name}={value!r}; it must be an integer")
    return kind(value)


def fill(kind: type, what: str, values: Mapping[str, Any]) -> Any:
    """The dataclass `kind` built from `values`, whose names and types are checked against its fields first.

    Args:
        kind: a dataclass with keyword fields.
        what: names it in errors, e.g. "method 'dm'".
        values: field name -> value; fields left out keep their defaults.

    Raises:
        ValueError: an unknown name (the known ones are listed), a wrong type, or whatever the dataclass refuses.
    """
    hints = get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    ready = {}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f"unknown setting {name!r} of {what}{nearest(name, fields)}; known: {', '.join(fields)}")
        ready[name] = _of_type(f"{name} of {what}", value, hints[name])
    return kind(**ready)


def _of_type(name: str, value: Any, hint: Any) -> Any:
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and NoneType in allowed:
        return None
    if len(allowed) > 1 and type(value) in allowed:
        return value
    for kind in (bool, float, int, str):
        if kind in allowed:
            if kind in (int, float):
                return number(name, value, kind)
            if not isinstance(value, kind):
                raise ValueError(f"{name}={value!r} is {type(value).__name__}; it must be {kind.__name__}")
    return value


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that is nearest to `name`, as a question to put behind an error; "" where none is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
