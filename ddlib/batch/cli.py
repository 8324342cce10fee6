"""The command `ddlib`: data sets, notebooks run in bulk, and the store of what they computed.

Exit codes: 0 all is well; 1 a notebook failed, data are missing or differ, or a product is stale or damaged; 2 the
command was refused, or every notebook refused its parameters, or a plan does not fit.
A command imports what it needs when it is carried out, since torch takes seconds to import.
"""

import argparse
import contextlib
import json
import math
import os
import re
import shlex
import shutil
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddlib import OUTPUT, PROFILES

if TYPE_CHECKING:
    from ddlib.batch.workflow import Where
    from ddlib.data.datasets import Check

Commands = argparse._SubParsersAction

FORMS = ("npz", "pt", "png", "hf", "safetensors", "ddranking", "dcbench")
"""`ddlib.export.FORMATS`, without importing torch for it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command, by default the process's own, and return its exit code; an error is one line on stderr."""
    parser = ArgumentParser(prog="ddlib", description="Data sets, notebooks run in bulk, and the store.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_data_commands(commands)
    _add_notebook_commands(commands)
    _add_store_commands(commands)
    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"ddlib: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ddlib: interrupted", file=sys.stderr)
        return 130


def _add(commands: Commands, name: str, command: Callable[[Namespace], int], help: str) -> ArgumentParser:
    parser = commands.add_parser(name, help=help)
    parser.set_defaults(command=command)
    return parser


def _add_verbs(commands: Commands, name: str, help: str) -> Commands:
    return commands.add_parser(name, help=help).add_subparsers(title="verbs", required=True, metavar="VERB")


def _at_least(kind: type, least: int, what: str) -> Callable[[str], float]:
    """What reads a finite number of a kind that is not below `least`."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= (number := kind(text)) < math.inf:
                return number
        raise ArgumentTypeError(f"{text!r}; it must be {what} >= {least}")

    return read


_hours, _count = _at_least(float, 0, "a number of hours"), _at_least(int, 1, "a whole number")


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(I?)B", text.strip().upper())
    if not match:
        raise ArgumentTypeError(f"{text!r}; it must be a number with a unit, such as 16GB, 512MB or 8GiB")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix))


# ---- data sets and priors


def _add_data_commands(commands: Commands) -> None:
    verbs = _add_verbs(commands, "data", "the data sets: what is known, there, and as it should be")
    _add(verbs, "list", _data_list, "all data sets and how to get them")
    get = _add(verbs, "get", _data_get, "download one, or say how it is got by hand")
    get.add_argument("name", metavar="NAME")
    add = _add(verbs, "add", _data_add, "give images of your own, in class folders, a name; their pixels are kept")
    add.add_argument("name", metavar="NAME")
    add.add_argument("folder", metavar="FOLDER", help="of class folders, under train/ and test/ or not; or saved sets")
    add.add_argument("--size", type=int, nargs="+", metavar="N", help="side, or height and width, to bring images to")
    add.add_argument("--channels", type=int, help="1, 3 or 4; without it 3, or 1 where all images are grey")
    add.add_argument("--holdout", type=float, default=0.2, help="share of each class for the test, if there is none")
    add.add_argument("--at-least", type=int, default=1, help="repeat the training images of classes that have fewer")
    check = _add(verbs, "check", _data_check, "compare what is there with its fingerprints")
    check.add_argument("name", metavar="NAME", nargs="?", help="one data set; without it, all of them")

    verbs = _add_verbs(commands, "prior", "latent diffusion models got elsewhere, as the notebooks read them")
    convert = _add(verbs, "convert", _convert, "make a folder of CompVis' checkpoint of cin256")
    convert.add_argument("checkpoint", type=Path, metavar="CKPT", help="the file model.ckpt of cin256")
    convert.add_argument("folder", type=Path, metavar="FOLDER", help="the new folder, to name as `prior`")
    convert.add_argument("--yes", action="store_true", help="load more than tensors: runs code of whoever made CKPT")


def _data_list(options: Namespace) -> int:
    from ddlib.data import datasets
    from ddlib.study import planning

    print(f"looked for under {datasets.data_root()} (the environment variable DDLIB_DATA names another folder)\n")
    rows = [("name", "images", "shape", "classes", "state", "to get it")]
    for name in (*datasets.names(), *datasets.own_names(datasets.data_root())):
        info, way = datasets.describe(name), _way_to_get(name)
        images = " + ".join("?" if size is None else str(size) for size in info.sizes)
        shape, state = "x".join(map(str, info.shape)), "missing" if way else "there"
        rows.append((name, images, shape, str(info.num_classes), state, way))
    print(planning.aligned(rows, "<><><<"))
    return 0


def _way_to_get(name: str) -> str:
    """The command that gets a data set whose files are not there; empty where they are."""
    from ddlib.data import datasets

    info = datasets.describe(name)
    if not info.location or (datasets.data_root() / info.location).exists():
        return ""
    return f"ddlib data get {name}" + ("" if info.downloadable else "  (tells how)")


def _data_get(options: Namespace) -> int:
    from ddlib.data import datasets

    return _print_check(datasets.get(options.name))


def _data_add(options: Namespace) -> int:
    from ddlib.data import own

    size = options.size[0] if options.size and len(options.size) == 1 else options.size
    ways = {"size": size, "channels": options.channels, "holdout": options.holdout, "at_least": options.at_least}
    own.check_name(options.name)  # before pictures are read, which takes its time
    sets = own.from_folder(options.folder, **ways)
    name, shape = own.add(sets, options.name), "x".join(map(str, sets.train.shape))
    print(
        f"{name}: {len(sets.train)} + {len(sets.test)} images of {shape}, {sets.train.num_classes} classes; {sets.note}"
    )
    return 0


def _data_check(options: Namespace) -> int:
    from ddlib.data import datasets

    code = 0
    everything = (*datasets.names(), *datasets.own_names(datasets.data_root()))
    for name in [options.name] if options.name else everything:
        if not options.name and (way := _way_to_get(name)):
            print(f"{name}: missing; {way}")
        else:
            code = max(code, _print_check(datasets.check(name)))
    return code


def _print_check(check: "Check") -> int:
    """Print what a data set's files were compared to; 0 if they can be used."""
    for split, message in check.messages.items():
        print(f"{check.name} {split}: {check.state}; {message}")
    return 0 if check.state in ("ok", "no reference") else 1


def _convert(options: Namespace) -> int:
    from ddlib.models import priors

    prior = priors.convert(options.checkpoint, options.folder.absolute(), trusted=options.yes)
    size = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
    print(f"{options.folder}: {prior.num_classes} classes, images of {prior.channels} channels, {size / 1e6:.1f} MB")
    return 0


# ---- notebooks


def _add_notebook_commands(commands: Commands) -> None:
    plan = _add(commands, "plan", _plan, "print what notebooks would take: time, memory, disk")
    plan.add_argument("--device", help="cpu, cuda or cuda:N (default: what the parameters say)")
    plan.add_argument("--budget-hours", type=_hours, metavar="H", help="refuse what does not fit into so many hours")
    plan.add_argument("--memory", type=_bytes, metavar="SIZE", help="refuse what takes more, such as 16GB")

    run = _add(commands, "reproduce", _reproduce, "run notebooks and print what came of them")
    run.add_argument("--output", type=Path, default=OUTPUT / "runs" / "notebooks", metavar="FOLDER",
                     help="where the executed notebooks go (default: %(default)s)")  # fmt: skip
    run.add_argument("--at-once", type=_count, default=1, metavar="N",
                     help="run N notebooks at the same time, each on its share of the cores (default: 1)")  # fmt: skip
    batch = run.add_argument_group("a batch", "one job a cell, then one a notebook, driven by Snakemake")
    place = batch.add_mutually_exclusive_group()
    place.add_argument("--cores", type=_count, metavar="N", help="use N cores of this machine")
    place.add_argument("--executor", choices=("slurm",), help="submit to this cluster")
    batch.add_argument("--jobs", type=_count, metavar="N", help="at most N jobs in the cluster's queue")
    batch.add_argument("--threads", type=_count, metavar="N", help="of a job; its sums depend on them (default: 1)")
    batch.add_argument("--snakemake", metavar="'OPTIONS'", help="further options, laid over workflow/profiles")

    gpu = _add(commands, "gpu", _gpu, "check a GPU, time it, and compute the papers' cells that fit into the minutes")
    gpu.add_argument("--minutes", type=float, default=10, metavar="N", help="all that it takes (default: 10)")
    gpu.add_argument("--out", type=Path, default=OUTPUT / "runs" / "gpu", metavar="DIR",
                     help="the folder that everything comes back in (default: %(default)s)")  # fmt: skip
    gpu.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal (default: cuda)")

    cell = _add(commands, "cell", _cell, "list a notebook's cells, or compute one of them into the store")
    cell.add_argument("notebook", metavar="NOTEBOOK", help="paper/experiment, or a path")
    cell.add_argument("cell", metavar="CELL", nargs="?", help="as the list names it; without it, the list")

    for parser in (plan, run):
        parser.add_argument("notebooks", metavar="NOTEBOOK", nargs="*", help="paper/experiment, a path or a paper")
    for parser in (run, cell):
        parser.add_argument("--gpus", type=lambda text: tuple(text.split(",")), default=(), metavar="LIST",
                            help="each job takes a free one of these, e.g. 0,1 (default: all, in a batch)")  # fmt: skip
    for parser in (plan, run, cell):
        parser.add_argument("--profile", choices=PROFILES, default="quick", help="the budget (default: %(default)s)")
        parser.add_argument("-f", "--parameters", type=Path, metavar="FILE", help="YAML laid over the profile's")


def _plan(options: Namespace) -> int:
    from ddlib import study
    from ddlib.batch import reproduce
    from ddlib.study import notebooks, parameters, planning

    plans = []
    for run in reproduce.plan(options.notebooks, options.profile, output=OUTPUT, overrides=options.parameters):
        if not notebooks.has_profile(run.name, run.profile):
            print(f"{run.name}: left out, no {run.profile} parameters\n")
            continue
        print(f"{run.name} ({run.profile}): taking a few steps of each kind", file=sys.stderr, flush=True)
        workplace = study.Workplace(parameters.device(options.device or run.device), progress="none")
        plans.append(study.plan(notebooks.cells(run.name, run.profile, run.changes), workplace))
        print(f"{run.name} ({run.profile})\n{planning.table(plans[-1])}\n{planning.line(plans[-1])}\n", flush=True)
    whole = planning.together(plans)
    if len(plans) > 1:
        print(f"in all, what notebooks share once: {planning.line(whole)}")
    refusals = planning.refusals(whole, budget_hours=options.budget_hours, memory=options.memory)
    for reason in refusals:
        print(f"ddlib: does not fit: {reason}", file=sys.stderr)
    return 2 if refusals else 0


def _reproduce(options: Namespace) -> int:
    from ddlib.batch import reproduce, workflow
    from ddlib.report import evidence

    where = _batch_options(options)
    overrides = options.parameters and options.parameters.absolute()
    runs = reproduce.plan(options.notebooks, options.profile, output=options.output.absolute(), overrides=overrides)
    before, _ = evidence.read_runs(path for run in runs for path in (run.committed, run.results))
    if where:
        batch = workflow.prepare(runs, where)
        counts = f"{len(batch.cells)} cells to compute, {len(batch.runs)} notebooks to run"
        print(f"{counts}; jobs and logs in {batch.folder}", file=sys.stderr, flush=True)
        workflow.execute(batch, where)
        outcomes = workflow.outcomes(runs, batch)
    else:
        with workflow.pinned(options.gpus):
            outcomes = reproduce.execute(runs, at_once=options.at_once)
    print(reproduce.table(outcomes))
    after, _ = evidence.read_runs(outcome.run.results for outcome in outcomes if outcome.verdicts is not None)
    before = [run for run in before if run.slug in {run.slug for run in after}]
    if before:
        print(f"\nDid it come out the same as before?  {evidence.agreement(before, after)}")
    failures = [outcome for outcome in outcomes if outcome.error]
    for outcome in failures:
        print(f"ddlib: {outcome.run.name} failed: {outcome.error}", file=sys.stderr)
    if outcomes and all(outcome.refused for outcome in outcomes):
        return 2
    return 1 if failures else 0


def _gpu(options: Namespace) -> int:
    from ddlib.batch import gpu

    for line in gpu.run(options.minutes, options.out, options.device):
        print(line, flush=True)
    return 0


def _batch_options(options: Namespace) -> "Where | None":
    """On what the batch runs; None for notebooks without a batch."""
    from ddlib.batch import workflow

    if options.cores or options.executor:
        if options.at_once > 1:
            raise ValueError(f"--at-once {options.at_once} is for notebooks without a batch; leave it out")
        return workflow.Where(
            cores=options.cores,
            executor=options.executor,
            jobs=options.jobs,
            threads=options.threads or 1,
            gpus=options.gpus or (() if options.executor else workflow.visible()),
            options=tuple(shlex.split(options.snakemake or "")),
        )
    for name in ("jobs", "threads", "snakemake"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} is for a batch: give --cores or --executor too")
    if options.at_once > 1 and options.gpus:
        raise ValueError(f"--at-once {options.at_once} is for notebooks on the CPU; with --gpus give --cores")
    return None


def _cell(options: Namespace) -> int:
    from ddlib import study
    from ddlib.batch import reproduce, workflow

    runs = reproduce.plan([options.notebook], options.profile, output=OUTPUT, overrides=options.parameters)
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs)
        raise ValueError(f"{options.notebook!r} names {len(runs)} notebooks; name one of {names}")
    cells = runs[0].cells()
    if options.cell is None:
        workplace = study.Workplace("cpu")
        for name, cell in cells.items():
            print(f"{name}  {'in the store' if study.finished(cell, workplace) else 'to do':<12}  {cell}")
        return 0
    record = workflow.compute(runs[0], options.cell, options.gpus)
    if record.n:
        accuracy = f"{record.accuracy_mean:.2f} % over {record.n} networks"
    else:
        accuracy = f"not begun, since {record.cost['estimated_hours']} h are more than budget_hours"
    print(f"{cells[options.cell].set_name}: {accuracy}")
    return 0


# ---- the store and the report


def _add_store_commands(commands: Commands) -> None:
    verbs = _add_verbs(commands, "runs", "what lies in the store: finished, interrupted or damaged")
    listing = _add(verbs, "list", _runs_list, "every piece of work, its state and size")
    show = _add(verbs, "show", _runs_show, "one piece: settings, cost, accuracies, whether its files are whole")
    show.add_argument("key", metavar="KEY", help="its key, or how that begins")
    clean = _add(verbs, "clean", _runs_clean, "delete what nothing can use any more, or the pieces named")
    clean.add_argument("keys", metavar="KEY", nargs="*", help="delete these pieces of work altogether")

    export = _add(commands, "export", _export, "write a distilled set as others read it, with its card")
    export.add_argument("run", metavar="RUN", help="a notebook (paper/experiment), a key of the store or how it "
                        "begins, a set's folder there, or a safetensors file")  # fmt: skip
    export.add_argument("--to", choices=FORMS, required=True, help="the form")
    export.add_argument("--output", type=Path, metavar="FOLDER", help="a new folder (default: by name, in the store)")
    export.add_argument("--force", action="store_true", help="replace an export that is there")
    export.add_argument("--no-network", action="store_true", help="train no network to go with the set")
    export.add_argument("--device", default="cpu", help="that the network is trained on (default: %(default)s)")
    which = export.add_argument_group("which", "where RUN stands for several")
    which.add_argument("--profile", choices=PROFILES, help="of a notebook (default: quick)")
    which.add_argument("--row", metavar="LABEL", help="of its table")
    which.add_argument("--ipc", type=int, metavar="N", help="images per class of the row")
    which.add_argument("--tested-on", metavar="NAME", help="network that the row is tested on")
    which.add_argument("--seed", type=int, metavar="N", help="of the distillation (default: the row's first)")
    which.add_argument("--evaluation", metavar="KEY", help="of a set in the store: which one is stated")

    judge = _add(commands, "judge", _judge, "judge anybody's distilled set beside random and all real images")
    judge.add_argument("files", type=Path, nargs="+", metavar="FILE",
                       help="images*.pt (labels*.pt, lr*.pt), res_*.pt, .npz, an export, pictures")  # fmt: skip
    judge.add_argument("--dataset", required=True, metavar="NAME", help="whose classes and test images it is for")
    spaces, kinds = ("pixels", "normalised", "zca", "zca_pixels"), ("classes", "probabilities", "logits")
    judge.add_argument("--space", choices=spaces, help="of the values (default: what the file or the values say)")
    judge.add_argument("--labels", choices=kinds, help="what they are (default: likewise)")
    judge.add_argument("--by", metavar="NAME", help="data set by whose mean and std images are normalised")
    judge.add_argument("--factor", type=_count, default=1, metavar="N", help="N x N images in each stored one (IDC)")
    judge.add_argument("--experiment", type=int, default=0, metavar="N", help="which set of a res_*.pt (default: 0)")
    judge.add_argument("--recipe", metavar="NAME", help="a method's, or a YAML file of settings (default: that of DC)")
    judge.add_argument("--no-whole", action="store_true", help="do not train on the whole training set; then no LRS")
    judge.add_argument("--label", metavar="TEXT", help="of the row (default: the name of the file or folder)")
    judge.add_argument("--seed", type=int, default=0, metavar="N", help="of the networks (default: 0)")
    judge.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    judge.add_argument("--output", type=Path, metavar="FILE", help="of records (default: judged/LABEL-KEY.json there)")

    for parser in (listing, show, clean, export, judge):
        parser.add_argument("--store", type=Path, default=OUTPUT / "runs", metavar="FOLDER",
                            help="the store (default: %(default)s)")  # fmt: skip

    report = _add(commands, "report", _report, "build the site to read in a browser; what is stale")
    report.add_argument("--output", type=Path, default=OUTPUT / "report", metavar="FOLDER",
                        help="where the site goes (default: %(default)s)")  # fmt: skip
    verbs = report.add_subparsers(title="verbs", metavar="VERB")
    _add(verbs, "stale", _report_stale, "results and figures older than their code or parameters, and why")
    same = _add(verbs, "compare", _report_compare, "whether two folders of results say the same, row by row")
    same.add_argument("before", type=Path, metavar="A", help="a folder such as results/")
    same.add_argument("after", type=Path, metavar="B", help="the other one")


def _runs_list(options: Namespace) -> int:
    from ddlib.store import inventory
    from ddlib.study import planning

    entries = inventory.entries(options.store)
    print(f"{len(entries)} pieces of work in {options.store}, {planning.size(sum(entry.size for entry in entries))}")
    rows = [("key", "kind", "what", "size", "evaluations", "state")]
    for entry in entries:
        size, count = planning.size(entry.size), str(entry.evaluations)
        rows.append((entry.key[:10], entry.kind, entry.name, size, count, entry.state))
    if entries:
        print(f"\n{planning.aligned(rows, '<<<>><')}")
    return 0


def _runs_show(options: Namespace) -> int:
    from ddlib.store import inventory
    from ddlib.study import planning

    entry = inventory.find(options.store, options.key)
    print(f"{entry.name} ({entry.kind}), {entry.state}")
    print(f"in {entry.folder}, {planning.size(entry.size)}")
    for name, value in entry.about.items():
        if name != "name":
            print(f"  {name}: {json.dumps(value)}")
    for evaluation in inventory.evaluations(entry):
        protocol = evaluation["protocol"]
        done = f"{len(evaluation['networks'])} of {protocol['num_networks']} networks"
        accuracies = ", ".join(f"{accuracy:.2f}" for accuracy in evaluation["accuracies"])
        print(f"  evaluation: {protocol['network']}, {protocol['epochs']} epochs, {done}: {accuracies} %")
    log = entry.folder / inventory.LOG_FILE
    for line in log.read_text(encoding="utf-8").splitlines()[-5:] if log.exists() else []:
        print(f"  log: {line}")
    faults = inventory.faults(entry)
    print("\n".join(faults) or "every file is what was written")
    return 1 if faults else 0


def _runs_clean(options: Namespace) -> int:
    from ddlib.store import inventory
    from ddlib.study import planning

    for entry in [inventory.find(options.store, key) for key in options.keys]:
        inventory.remove(entry)
        print(f"deleted {entry.name} ({entry.folder}), {planning.size(entry.size)}")
    if options.keys:
        return 0
    paths = inventory.leftovers(options.store)
    total = sum(inventory.size(path) for path in paths)
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        print(f"deleted {path}")
    print(f"deleted {len(paths)} files, {planning.size(total)}")
    return 0


def _export(options: Namespace) -> int:
    from ddlib import export
    from ddlib.export import network

    synthetic = export.chosen(options.run, options.store, **{name: getattr(options, name) for name in export.CHOICE})
    card = synthetic.card
    name = re.sub(r"[^a-z0-9.]+", "-", (card.name if card else Path(options.run).stem).lower()).strip("-")
    folder = options.output or options.store / "exports" / f"{name}.{options.to}"
    export.check_free(folder, force=options.force)
    trained = None
    if not options.no_network and not network.refusal(card):
        trained = network.train(synthetic, device=options.device)
    export.export(synthetic, options.to, folder, network=trained, force=options.force)
    print(f"{folder}: {f'{card.mean:.2f} % over {card.n} networks stated' if card else 'no accuracy stated'}")
    if trained:
        about = json.loads((folder / export.CARD).read_text(encoding="utf-8"))["network"]
        print(f"network {about['index']} has {about['accuracy']:.2f} % here; {about['stated']:.2f} % of it are stated")
    return 0


def _judge(options: Namespace) -> int:
    from ddlib import report, results, study
    from ddlib.analyses import judge
    from ddlib.data.released import read_set
    from ddlib.store import files

    protocol = judge.recipe(options.recipe)
    reading = {name: getattr(options, name) for name in ("dataset", "space", "labels", "by", "factor", "experiment")}
    distilled, path = read_set(*options.files, **reading), options.files[0].resolve()
    label = options.label or (path.name if path.is_dir() else path.stem)
    print(distilled.provenance["read_as"], flush=True)
    workplace = study.Workplace(options.device, folder=options.store)
    records = judge.judge(
        distilled, label, options.dataset, workplace, protocol=protocol, seed=options.seed, whole=not options.no_whole
    )
    key = files.key({"cells": [record.cell for record in records]})[:8]  # others of the same label stay
    path = results.write(records, options.output or options.store / "judged" / f"{label}-{key}.json")
    print(f"{report.leaderboard(report.standings(records, **judge.names(records)))}\nrecords: {path}")
    return 0


def _report(options: Namespace) -> int:
    from ddlib.report import site

    begin = time.perf_counter()
    page = site.build(options.output.absolute())
    pages = len(list(page.parent.rglob("*.html")))
    print(f"{pages} pages in {time.perf_counter() - begin:.0f} s; open {page.as_uri()}")
    return 0


def _report_compare(options: Namespace) -> int:
    from ddlib.report import evidence

    print(evidence.agreement(evidence.read(options.before), evidence.read(options.after)))
    return 0


def _report_stale(options: Namespace) -> int:
    from ddlib.report import stale

    reasons = stale.reasons()
    for path, why in reasons.items():
        for reason in why:
            print(f"{path}: {reason}")
    number = sum(map(bool, reasons.values()))
    print(f"{number} of {len(reasons)} results and figures are stale")
    return 1 if number else 0
