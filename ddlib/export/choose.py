"""The distilled set that is to travel, by what its user can name, with the card that states what it reached."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ddlib import evaluation as evaluating
from ddlib import results
from ddlib.data import datasets, synthetic
from ddlib.data.synthetic import Card, SyntheticSet, SyntheticStream
from ddlib.store import files, inventory
from ddlib.store.artefacts import Workplace
from ddlib.store.files import read_seal
from ddlib.study import notebooks, work

PRODUCT = "synthetic.safetensors"

CHOICE = ("profile", "row", "ipc", "tested_on", "seed", "evaluation")
"""What narrows down a name that stands for several sets: of a notebook, but the last, of a set in the store."""


def chosen(run: str, store: Path, **choice: Any) -> SyntheticSet | SyntheticStream:
    """The set or stream that `run` names, with its card where it was judged.

    Args:
        run: a safetensors file; the folder of a set in the store, or how its key begins; or a notebook.
        choice: of a notebook its `profile` (default: quick), as much of `row`, `ipc` and `tested_on` as names one row
            of its table, and the `seed` of the row's distillation (default: the first); of a set in the store the
            `evaluation`, by how the name of its file `evaluation-*.json` goes on.  None is as left out.

    Raises:
        ValueError: nothing has the name, or several have; they are listed.  Or a choice does not apply.
        FileNotFoundError: a file, or the real data that the set stands for, is not there.
    """
    choice = {name: value for name, value in choice.items() if value is not None}
    path = Path(run)
    if path.name == PRODUCT and (path.parent / inventory.RUN).exists():
        path = path.parent
    if path.suffix == ".safetensors":
        _check_applies(choice, f"the file {path}", ())
        return synthetic.load(path)
    if "/" in run and not path.is_dir():
        _check_applies(choice, f"the notebook {run}", CHOICE[:-1])
        return _of_notebook(run, store, **choice)
    folder = path if path.is_dir() else inventory.find(store, run).folder
    _check_applies(choice, f"{folder.name}, one set in the store", CHOICE[-1:])
    return _of_store(folder, choice.get("evaluation", ""))


def _check_applies(choice: Mapping[str, Any], what: str, allowed: Sequence[str]) -> None:
    for name, value in choice.items():
        if name not in allowed:
            known = ", ".join(f"--{option.replace('_', '-')}" for option in allowed) or "none"
            raise ValueError(f"--{name.replace('_', '-')} {value} does not apply to {what}; options that do: {known}")


def _of_store(folder: Path, beginning: str) -> SyntheticSet | SyntheticStream:
    """The set in a folder of the store, by the evaluation whose name goes on with `beginning`."""
    record = files.read_json(folder / inventory.RUN)
    if record is None or not (folder / PRODUCT).exists():
        allowed = f"a folder with {inventory.RUN} and {PRODUCT}"
        raise ValueError(f"{folder} holds no finished synthetic set; allowed: {allowed}")
    distilled, seal = synthetic.load(folder / PRODUCT), read_seal(folder / PRODUCT)
    paths = {path.stem.removeprefix("evaluation-"): path for path in sorted(folder.glob("evaluation-*.json"))}
    contents = {name: files.read_json(path) for name, path in paths.items() if name.startswith(beginning)}
    if beginning and not contents:
        raise ValueError(f"evaluation={beginning!r}; known: {', '.join(paths) or 'none'}")
    evaluations = {  # of the set as it is, with all their networks
        name: e
        for name, e in contents.items()
        if e["of"] == seal and len(e["networks"]) == e["protocol"]["num_networks"]
    }
    if not evaluations:
        return distilled
    if isinstance(distilled, SyntheticStream):
        text = f"{record['name']} is a generator, and the rows of a notebook say how many images it makes"
        raise ValueError(f"{text}: name one, as in `ddlib export dim/accuracy --row DiM --ipc 10`")
    if len(evaluations) > 1:
        means = {name: f"{e['protocol']['network']}, {fmean(e['accuracies']):.2f} %" for name, e in evaluations.items()}
        ways = "; ".join(f"{name} ({mean})" for name, mean in means.items())
        text = f"{record['name']} was judged in {len(means)} ways; choose by --evaluation, `ddlib runs show` has their"
        raise ValueError(f"{text} settings: {ways}")
    return replace(distilled, card=_card(record, next(iter(evaluations.values()))))


def _of_notebook(
    run: str, store: Path, *, profile: str = "quick", seed: int | None = None, **wanted: Any
) -> SyntheticSet | SyntheticStream:
    """What the one row of a notebook that is as `wanted` distilled."""
    names = notebooks.chosen([run], profile)
    if len(names) != 1:
        raise ValueError(f"run={run!r} names {len(names)} notebooks; allowed: one of {', '.join(names)}")
    cells = {str(cell): cell for cell in notebooks.cells(names[0], profile)}
    for name, value in wanted.items():
        cells = {text: cell for text, cell in cells.items() if getattr(cell, name.replace("row", "label")) == value}
    if len(cells) != 1:
        known = "; ".join(cells or map(str, notebooks.cells(names[0], profile)))
        raise ValueError(f"{len(cells)} rows of {names[0]} fit; choose one by --row, --ipc and --tested-on of: {known}")
    (cell,) = cells.values()
    seed = cell.seeds[0] if seed is None else seed
    if seed not in cell.seeds:
        raise ValueError(f"seed={seed}; {cell} has the seeds {', '.join(map(str, cell.seeds))}")
    workplace = Workplace("cpu", folder=store, progress="none")
    judged = work.Accuracies(cell, seed, workplace)
    if not judged.finished():
        command = f"ddlib reproduce {run} --profile {profile}"
        raise ValueError(f"{cell}, seed {seed} is not in the store {store}; `{command}` computes it")
    record = work.distillation_record(cell, seed, workplace)
    card = _card(record, judged.record(), f"{cell.set_name}, seed {seed}")
    return replace(work.synthetic_set(cell, seed, workplace), card=card)


def _card(record: Mapping[str, Any], evaluation: Mapping[str, Any], name: str = "") -> Card:
    """The card of a set from what the store knows of its distillation and of one evaluation."""
    settings, info = record["settings"], datasets.describe(record["settings"]["dataset"])
    judged, distilled = (results.joined(s["provenance"] for s in part["sittings"]) for part in (evaluation, record))
    decided = {key: settings[key] for key in ("version", "hyperparameters")}
    return Card(
        name=name or record["name"],
        method=settings["method"],
        dataset=info.name,
        licence=info.licence,
        whitened=settings["whitened"],
        train_fingerprint=datasets.fingerprint_of(info.name, "train"),
        test_fingerprint=datasets.fingerprint_of(info.name, "test"),
        protocol=evaluation["protocol"],
        seed=record["seed"],
        networks=evaluation["networks"],
        accuracies=evaluation["accuracies"],
        provenance=judged | {"distilled": distilled | decided},
        evaluation_version=evaluating.VERSION,
    )
