"""`ddlib plan`: what notebooks would take, before they are run."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddlib.study.parameters import PROFILES

if TYPE_CHECKING:
    from ddlib.study.planning import Plan

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    plan = commands.add_parser("plan", help="print what notebooks would take: time, memory, disk")
    plan.add_argument("notebooks", metavar="NOTEBOOK", nargs="*", help="paper/experiment, a path or a paper")
    plan.add_argument("--profile", choices=PROFILES, default="quick", help="the budget (default: %(default)s)")
    plan.add_argument("-f", dest="file", type=Path, metavar="FILE", help="YAML parameters laid over the profile's")
    plan.add_argument("--device", help="cpu, cuda or cuda:N (default: what the parameters say)")
    plan.add_argument("--budget-hours", type=_hours, metavar="H", help="refuse what does not fit into so many hours")
    plan.add_argument("--memory", type=_bytes, metavar="SIZE", help="refuse what takes more, such as 16GB")
    plan.set_defaults(command=_plan)


def _plan(told: argparse.Namespace) -> int:
    from ddlib.study import notebooks, planning

    overrides = notebooks.read_params(told.file) if told.file else {}
    plans = {}
    for name in notebooks.chosen(told.notebooks, told.profile):
        if not notebooks.has_profile(name, told.profile):
            print(f"{name}: left out, no {told.profile} parameters\n")
            continue
        print(f"{name} ({told.profile}): taking a few steps of each kind", file=sys.stderr, flush=True)
        plans[name] = _plan_of(name, told, overrides)
        print(f"{name} ({told.profile})\n{planning.table(plans[name])}\n{planning.line(plans[name])}\n", flush=True)
    whole = planning.together(plans.values())
    if len(plans) > 1:
        print(f"in all, what notebooks share once: {planning.line(whole)}")
    refused = planning.refusals(whole, budget_hours=told.budget_hours, memory=told.memory)
    for reason in refused:
        print(f"ddlib: does not fit: {reason}", file=sys.stderr)
    return 2 if refused else 0


def _plan_of(name: str, told: argparse.Namespace, overrides: dict[str, Any]) -> "Plan":
    from ddlib import study
    from ddlib.study import notebooks

    device = told.device or notebooks.parameters(name, told.profile, overrides).get("device", "cpu")
    cells = notebooks.cells(name, told.profile, overrides)
    try:
        workplace = study.Workplace(device, progress="none")
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}; steps are timed on the device itself: plan on a machine that has it, or say --device cpu"
        ) from error
    return study.plan(cells, workplace)


def _hours(text: str) -> float:
    """A number of hours, 0 or more."""
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not 0 <= hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; it must be a number of hours >= 0")
    return hours


def _bytes(text: str) -> int:
    """Bytes, from a number and a unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]I?B)", text.strip().upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}; it must be a number with a unit, such as 16GB, 512MB or 8GiB")
    return int(float(match[1]) * UNITS[match[2]])
