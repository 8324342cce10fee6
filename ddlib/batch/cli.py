"""The command `ddlib`: data sets, notebooks run in bulk, and the store of what they computed.

    ddlib data list | get NAME | check [NAME]
    ddlib prior convert CKPT FOLDER [--yes]
    ddlib plan [NOTEBOOK ...] [--profile quick|hour|paper] [-f FILE] [--device D] [--budget-hours H] [--memory 16GB]
    ddlib reproduce [NOTEBOOK ...] [--profile quick|hour|paper] [-f FILE] [--cores N | --executor slurm] ...
    ddlib cell NOTEBOOK [CELL] [--profile quick|hour|paper] [-f FILE]
    ddlib runs list | show KEY | clean [KEY ...]
    ddlib export RUN --to npz|pt|png|hf|safetensors|ddranking|dcbench [--output FOLDER] [--force] ...
    ddlib report [--output FOLDER] [--profile quick|hour|paper ...]
    ddlib report stale

Exit codes: 0 all is well; 1 a notebook failed, data are missing or differ, or a product is stale or damaged; 2 the
command was refused, or a plan does not fit.
A command imports what it needs when it is carried out, since torch takes seconds to import.
"""

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddlib import OUTPUT, PROFILES

if TYPE_CHECKING:
    from ddlib.data import datasets


def _add_data(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    data = commands.add_parser("data", help="the data sets: what is known, there, and as it should be")
    verbs = data.add_subparsers(title="verbs", required=True, metavar="VERB")
    verbs.add_parser("list", help="all data sets and how to get them").set_defaults(command=_data_list)
    get = verbs.add_parser("get", help="download one, or say how it is got by hand")
    get.add_argument("name", metavar="NAME")
    get.set_defaults(command=_data_get)
    check = verbs.add_parser("check", help="compare what is there with its fingerprints")
    check.add_argument("name", metavar="NAME", nargs="?", help="one data set; without it, all of them")
    check.set_defaults(command=_data_check)


def _data_list(told: argparse.Namespace) -> int:
    from ddlib.data import datasets

    root = datasets.data_root()
    print(f"looked for under {root} (the environment variable DDLIB_DATA names another folder)\n")
    print(f"{'name':<17} {'images':>14}  {'shape':<11} {'classes':>7}  {'state':<8} to get it")
    for name in datasets.names():
        info = datasets.describe(name)
        images = " + ".join("?" if size is None else str(size) for size in info.sizes)
        shape = "x".join(map(str, info.shape))
        state, way = _data_state(info, root)
        print(f"{name:<17} {images:>14}  {shape:<11} {info.num_classes:>7}  {state:<8} {way}".rstrip())
    return 0


def _data_state(info: "datasets.DatasetInfo", root: Path) -> tuple[str, str]:
    """Whether a data set's files are there, unread, and the way to get them if not."""
    if not info.location or (root / info.location).exists():
        return "there", ""
    return "missing", f"ddlib data get {info.name}" + ("" if info.downloadable else "  (tells how)")


def _data_get(told: argparse.Namespace) -> int:
    from ddlib.data import datasets

    return _checked(datasets.get(told.name))


def _data_check(told: argparse.Namespace) -> int:
    from ddlib.data import datasets

    if told.name is not None:
        return _checked(datasets.check(told.name))
    root, worst = datasets.data_root(), 0
    for name in datasets.names():
        state, way = _data_state(datasets.describe(name), root)
        if state == "missing":
            print(f"{name}: missing; {way}")
        else:
            worst = max(worst, _checked(datasets.check(name)))
    return worst


def _checked(check: "datasets.Check") -> int:
    """Print what was found of one data set; 0 if it can be used."""
    for split, message in check.messages.items():
        print(f"{check.name} {split}: {check.state}; {message}")
    return 0 if check.state in ("ok", "no reference") else 1


def _add_prior(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    prior = commands.add_parser("prior", help="latent diffusion models got elsewhere, as the notebooks read them")
    verbs = prior.add_subparsers(title="verbs", required=True, metavar="VERB")
    convert = verbs.add_parser("convert", help="make a folder of CompVis' checkpoint of cin256")
    convert.add_argument("checkpoint", type=Path, metavar="CKPT", help="the file model.ckpt of cin256")
    convert.add_argument("folder", type=Path, metavar="FOLDER", help="the new folder, to name as `prior`")
    convert.add_argument("--yes", action="store_true", help="load more than tensors: runs code of whoever made CKPT")
    convert.set_defaults(command=_convert)


def _convert(told: argparse.Namespace) -> int:
    from ddlib.models import cin256

    prior = cin256.convert(told.checkpoint, told.folder, trusted=told.yes)
    size = sum(file.stat().st_size for file in told.folder.rglob("*") if file.is_file())
    print(f"{told.folder}: {prior.num_classes} classes, images of {prior.channels} channels, {size / 1e6:.1f} MB")
    return 0


if TYPE_CHECKING:
    from ddlib.study.planning import Plan

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def _add_plan(commands: argparse._SubParsersAction) -> None:
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
    from ddlib.study import notebooks, parameters, planning

    overrides = parameters.read_params(told.file) if told.file else {}
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


if TYPE_CHECKING:
    from ddlib.batch.reproduce import Outcome, Run
    from ddlib.batch.workflow import Where

BATCH = ("jobs", "threads", "snakemake")
"""Options that mean nothing to notebooks run one by one."""


def _add_reproduce(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    run = commands.add_parser("reproduce", help="run notebooks and print what came of them")
    run.add_argument("notebooks", metavar="NOTEBOOK", nargs="*", help="paper/experiment, a path or a paper")
    add_settings(run)
    run.add_argument("--output", type=Path, default=OUTPUT / "runs" / "notebooks", metavar="FOLDER",
                     help="where the executed notebooks go (default: %(default)s)")  # fmt: skip
    run.add_argument("--at-once", type=int, default=1, metavar="N",
                     help="run N notebooks at the same time, each on its share of the cores (default: 1)")  # fmt: skip
    run.add_argument("--outcomes", type=Path, metavar="FILE", help="write the table as JSON too")
    batch = run.add_argument_group("a batch", "one job a cell, then one a notebook, driven by Snakemake")
    batch.add_argument("--cores", type=int, metavar="N", help="use N cores of this machine")
    batch.add_argument("--executor", choices=("slurm",), help="submit to this cluster")
    batch.add_argument("--jobs", type=int, metavar="N", help="at most N jobs in the cluster's queue")
    batch.add_argument("--threads", type=int, metavar="N", help="of each job, on which its sums depend (default: 1)")
    batch.add_argument("--snakemake", metavar="'OPTIONS'", help="further options, laid over workflow/profiles")
    run.set_defaults(command=_reproduce)


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add what decides a notebook's parameters, and the GPUs that it may use."""
    command.add_argument("--profile", choices=PROFILES, default="quick", help="the budget (default: %(default)s)")
    command.add_argument("-f", "--parameters", type=Path, metavar="FILE", help="YAML laid over them")
    command.add_argument("--gpus", type=lambda text: tuple(text.split(",")), default=(), metavar="LIST",
                         help="each job takes a free one of these, e.g. 0,1 (default: all, in a batch)")  # fmt: skip


def _reproduce(told: argparse.Namespace) -> int:
    from ddlib.batch import reproduce

    where = _where(told)
    overrides = told.parameters and told.parameters.absolute()
    runs = reproduce.plan(told.notebooks, told.profile, output=told.output.absolute(), overrides=overrides)
    outcomes = _batch(runs, where) if where else _as_they_are(runs, told)
    if told.outcomes:
        reproduce.write(outcomes, told.outcomes)
    print(reproduce.table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"ddlib: {outcome.run.name} failed: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


def _where(told: argparse.Namespace) -> "Where | None":
    """On what the batch runs; None for notebooks without one."""
    if told.cores is None and told.executor is None:
        for name in BATCH:
            if getattr(told, name) is not None:
                raise ValueError(f"--{name} is for a batch: give --cores or --executor too")
        return None
    if told.at_once > 1:
        raise ValueError(f"--at-once {told.at_once} is for notebooks without a batch; leave it out")
    from ddlib.batch import workflow

    return workflow.Where(
        cores=told.cores,
        executor=told.executor,
        jobs=told.jobs,
        threads=1 if told.threads is None else told.threads,
        gpus=told.gpus or (() if told.executor else workflow.visible()),
        options=tuple(shlex.split(told.snakemake or "")),
    )


def _as_they_are(runs: "Sequence[Run]", told: argparse.Namespace) -> "list[Outcome]":
    """Notebooks without a batch, one by one or a few at once."""
    from ddlib.batch import reproduce, workflow

    if told.at_once > 1 and told.gpus:
        raise ValueError(f"--at-once {told.at_once} is for notebooks on the CPU; with --gpus give --cores")

    def note(run: "Run") -> None:
        print(f"{run.name} ({run.profile}): running, log in {run.log}", file=sys.stderr, flush=True)

    with workflow.pinned(told.gpus):
        return reproduce.execute_all(runs, at_once=told.at_once, on_begin=note)


def _batch(runs: "Sequence[Run]", where: "Where") -> "list[Outcome]":
    from ddlib.batch import workflow

    batch = workflow.prepare(runs, where)
    print(f"{len(batch.cells)} cells to compute, {len(batch.runs)} notebooks to run; jobs and logs in {batch.folder}",
          file=sys.stderr, flush=True)  # fmt: skip
    workflow.execute(batch, where)
    return workflow.outcomes(runs, batch)


if TYPE_CHECKING:
    from ddlib.results import Record


def _add_cell(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    cell = commands.add_parser("cell", help="list a notebook's cells, or compute one of them into the store")
    cell.add_argument("notebook", metavar="NOTEBOOK", help="paper/experiment, or a path")
    cell.add_argument("cell", metavar="CELL", nargs="?", help="as the list names it; without it, the list")
    add_settings(cell)
    cell.set_defaults(command=_cell)


def _cell(told: argparse.Namespace) -> int:
    from ddlib import OUTPUT
    from ddlib.batch import reproduce, workflow

    runs = reproduce.plan([told.notebook], told.profile, output=OUTPUT, overrides=told.parameters)
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs)
        raise ValueError(f"{told.notebook!r} names {len(runs)} notebooks; name one of {names}")
    if told.cell is None:
        for name, text, state in workflow.listing(runs[0]):
            print(f"{name}  {state:<12}  {text}")
        return 0
    record = workflow.compute(runs[0], told.cell, told.gpus)
    amount = "all images" if record.ipc is None else f"IPC {record.ipc}"
    print(f"{record.label}, {record.dataset}, {amount}: {_reached(record)}")
    return 0


def _reached(record: "Record") -> str:
    if not record.n:
        return f"not begun, since {record.cost['estimated_hours']} h are more than budget_hours"
    return f"{record.accuracy_mean:.2f} % over {record.n} networks"


SHORT = 10
"""Hex digits of a key that are shown."""


def _add_runs(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    runs = commands.add_parser("runs", help="what lies in the store: finished, interrupted or damaged")
    verbs = runs.add_subparsers(title="verbs", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="every piece of work, its state and size")
    listing.set_defaults(command=_runs_list)
    show = verbs.add_parser("show", help="one piece: settings, cost, accuracies, whether its files are whole")
    show.add_argument("key", metavar="KEY", help="its key, or how that begins")
    show.set_defaults(command=_runs_show)
    clean = verbs.add_parser("clean", help="delete what nothing can use any more, or the pieces named")
    clean.add_argument("keys", metavar="KEY", nargs="*", help="delete these pieces of work altogether")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    clean.set_defaults(command=_runs_clean)
    for parser in (listing, show, clean):
        parser.add_argument("--store", type=Path, default=OUTPUT / "runs", metavar="FOLDER",
                            help="the store (default: %(default)s)")  # fmt: skip


def _runs_list(told: argparse.Namespace) -> int:
    from ddlib.store import inventory

    found = inventory.entries(told.store)
    print(f"{len(found)} pieces of work in {told.store}, {_size(sum(entry.size for entry in found))}")
    if found:
        width = max(len(entry.name) for entry in found)
        print(f"\n{'key':<{SHORT}}  {'kind':<10} {'what':<{width}}  {'size':>8}  {'evaluations':>11}  state")
    for entry in found:
        state = f"{entry.state}{f': {entry.detail}' if entry.detail else ''}"
        line = f"{entry.key[:SHORT]}  {entry.kind:<10} {entry.name:<{width}}  {_size(entry.size):>8}"
        print(f"{line}  {entry.evaluations:>11}  {state}")
    return 0


def _runs_show(told: argparse.Namespace) -> int:
    from ddlib.store import inventory

    entry = inventory.find(told.store, told.key)
    print(f"{entry.name} ({entry.kind}), {entry.state}{f': {entry.detail}' if entry.detail else ''}")
    print(f"in {entry.folder}, {_size(entry.size)}")
    for name, value in inventory.described(entry).items():
        if name != "name":
            print(f"  {name}: {json.dumps(value)}")
    for found in inventory.evaluations(entry):
        protocol = found["protocol"]
        done = f"{len(found['networks'])} of {protocol['num_networks']} networks"
        accuracies = ", ".join(f"{accuracy:.2f}" for accuracy in found["accuracies"])
        print(f"  evaluation: {protocol['network']}, {protocol['epochs']} epochs, {done}: {accuracies} %")
    log = entry.folder / inventory.LOG_FILE
    for line in log.read_text(encoding="utf-8").splitlines()[-5:] if log.exists() else []:
        print(f"  log: {line}")
    faults = inventory.faults(entry)
    print("\n".join(faults) if faults else "every file is what was written")
    return 1 if faults else 0


def _runs_clean(told: argparse.Namespace) -> int:
    from ddlib.store import inventory

    verb = "would delete" if told.dry_run else "deleted"
    for entry in [inventory.find(told.store, key) for key in told.keys]:
        if not told.dry_run:
            inventory.remove(entry)
        print(f"{verb} {entry.name} ({entry.folder}), {_size(entry.size)}")
    if told.keys:
        return 0
    found = inventory.leftovers(told.store)
    total = sum(inventory.size(path) for path in found)
    for path in found:
        if not told.dry_run:
            inventory.discard(path)
        print(f"{verb} {path}")
    print(f"{verb} {len(found)} files, {_size(total)}")
    return 0


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


FORMS = ("npz", "pt", "png", "hf", "safetensors", "ddranking", "dcbench")
"""`ddlib.export.FORMATS`, without importing torch for it."""


def _add_export(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    export = commands.add_parser("export", help="write a distilled set as others read it, with its card")
    export.add_argument("run", metavar="RUN", help="a notebook (paper/experiment), a key of the store or how it "
                        "begins, a set's folder there, or a safetensors file")  # fmt: skip
    export.add_argument("--to", choices=FORMS, required=True, help="the form")
    export.add_argument("--output", type=Path, metavar="FOLDER", help="a new folder (default: by name, in the store)")
    export.add_argument("--force", action="store_true", help="replace an export that is there")
    export.add_argument("--no-network", action="store_true", help="train no network to go with the set")
    export.add_argument("--device", default="cpu", help="that the network is trained on (default: %(default)s)")
    export.add_argument("--store", type=Path, default=OUTPUT / "runs", metavar="FOLDER",
                        help="the store (default: %(default)s)")  # fmt: skip
    which = export.add_argument_group("which", "where RUN stands for several")
    which.add_argument("--profile", choices=PROFILES, help="of a notebook (default: quick)")
    which.add_argument("--row", metavar="LABEL", help="of its table")
    which.add_argument("--ipc", type=int, metavar="N", help="images per class of the row")
    which.add_argument("--tested-on", dest="network", metavar="NAME", help="that the row is tested on")
    which.add_argument("--seed", type=int, metavar="N", help="of the distillation (default: the row's first)")
    which.add_argument("--evaluation", metavar="KEY", help="of a set in the store: which one is stated")
    export.set_defaults(command=_export)


def _export(told: argparse.Namespace) -> int:
    from ddlib import export
    from ddlib.export import network

    names = ("profile", "row", "ipc", "network", "seed", "evaluation")
    found = export.chosen(told.run, told.store, export.Choice(**{name: getattr(told, name) for name in names}))
    folder = told.output or told.store / "exports" / f"{_name(found.card.name if found.card else told.run)}.{told.to}"
    export.check_free(folder, force=told.force)
    wanted = not told.no_network and network.trainable(found.card)
    frozen = network.train(found, device=told.device) if wanted else None
    export.export(found, told.to, folder, network=frozen, force=told.force)
    stated = f"{found.card.mean:.2f} % over {found.card.n} networks stated" if found.card else "no accuracy stated"
    print(f"{folder}: {stated}")
    if frozen:
        kept = json.loads((folder / export.CARD).read_text(encoding="utf-8"))["network"]
        print(f"network {kept['index']} has {kept['accuracy']:.2f} % here; {kept['stated']:.2f} % of it are stated")
    return 0


def _name(text: str) -> str:
    """A name for a folder, such as `atom-digits-ipc-1-seed-0`."""
    return re.sub(r"[^a-z0-9.]+", "-", Path(text).name.removesuffix(".safetensors").lower()).strip("-")


def _add_report(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    report = commands.add_parser("report", help="build the site to read in a browser; what is stale")
    report.add_argument("--output", type=Path, default=OUTPUT / "report", metavar="FOLDER",
                        help="where the site goes (default: %(default)s)")  # fmt: skip
    report.add_argument("--profile", choices=PROFILES, nargs="+", default=[], help="those to show (default: all)")
    report.set_defaults(command=_report)
    verbs = report.add_subparsers(title="verbs", metavar="VERB")
    stale = verbs.add_parser("stale", help="results and figures older than their code or parameters, and why")
    stale.set_defaults(command=_report_stale)


def _report(told: argparse.Namespace) -> int:
    from ddlib.report import site

    begin = time.perf_counter()
    page = site.build(told.output.absolute(), told.profile)
    pages = len(list(page.parent.rglob("*.html")))
    print(f"{pages} pages in {time.perf_counter() - begin:.0f} s; open {page.as_uri()}")
    return 0


def _report_stale(told: argparse.Namespace) -> int:
    from ddlib.report import stale

    found = stale.findings()
    for finding in found:
        print(f"{finding.path}: {finding.reason}")
    print(f"{len({finding.path for finding in found})} of {len(stale.files())} results and figures are stale")
    return 1 if found else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code; an error is one line on stderr.

    Args:
        arguments: the words after `ddlib`; None: those of the process.
    """
    told = _parser().parse_args(arguments)
    try:
        return told.command(told)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"ddlib: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ddlib: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ddlib", description="Data sets, notebooks run in bulk, and the store.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for add in (_add_data, _add_prior, _add_plan, _add_reproduce, _add_cell, _add_runs, _add_export, _add_report):
        add(commands)
    return parser
