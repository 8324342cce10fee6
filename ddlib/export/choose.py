"""The distilled set that is to travel, found by what its user can name, with the card that states what it reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ddlib import evaluation, results
from ddlib.data import datasets, synthetic
from ddlib.data.synthetic import Card, SyntheticSet, SyntheticStream
from ddlib.evaluation.protocol import LATER
from ddlib.store import files, inventory
from ddlib.store.artefacts import Workplace
from ddlib.store.files import read_seal
from ddlib.study import notebooks, work
from ddlib.study.rows import Cell

PRODUCT = "synthetic.safetensors"

OPTIONS = {"network": "--tested-on"} | {one: f"--{one}" for one in ("profile", "row", "ipc", "seed", "evaluation")}
"""Field of `Choice` -> what the command calls it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What narrows a name down that stands for several sets or evaluations; None: whatever there is, if it is one.

    profile, row, ipc, network: of the row of a notebook, as its table names it; profile None: quick.
    seed: of the distillation, of a notebook's row; None: the first.
    evaluation: of a set in the store: how the name of the file `evaluation-*.json` goes on.
    """

    profile: str | None = None
    row: str | None = None
    ipc: int | None = None
    network: str | None = None
    seed: int | None = None
    evaluation: str | None = None


def chosen(run: str, store: Path, choice: Choice | None = None) -> SyntheticSet | SyntheticStream:
    """The set or stream that `run` names, with its card.

    Args:
        run: a safetensors file; the folder of a set in the store, or how its key begins; or a notebook,
            `paper/experiment`, whose row `choice` names.
        store: the folder of the store.
        choice: which, where `run` stands for several; nothing that does not apply to what `run` is.

    Returns:
        The set; without a card where it was never judged.

    Raises:
        ValueError: nothing has the name, or several have; they are listed.  Or a choice does not apply.
        FileNotFoundError: a file, or the real data that the set stands for, is not there.
    """
    choice, path = choice or Choice(), Path(run)
    if path.suffix == ".safetensors":
        kept = path.name == PRODUCT and (path.parent / inventory.RUN).exists()
        if kept:
            return _of_store(path.parent, choice)
        _check_applies(choice, f"the file {path}", ())
        return synthetic.load(path)
    if path.is_dir():
        return _of_store(path, choice)
    if "/" in run:
        return _of_notebook(run, store, choice)
    return _of_store(inventory.find(store, run).folder, choice)


def _check_applies(choice: Choice, what: str, allowed: Sequence[str]) -> None:
    """Refuse the settings of a choice that say nothing of what is named."""
    told = {name: value for name, value in vars(choice).items() if value is not None and name not in allowed}
    for name, value in told.items():
        known = ", ".join(OPTIONS[one] for one in allowed) or "none"
        raise ValueError(f"{OPTIONS[name]} {value} does not apply to {what}; options that do: {known}")


def _of_store(folder: Path, choice: Choice) -> SyntheticSet | SyntheticStream:
    _check_applies(choice, f"{folder.name}, one set in the store", ("evaluation",))
    made = files.read_json(folder / inventory.RUN)
    if made is None or not (folder / PRODUCT).exists():
        raise ValueError(
            f"{folder} holds no finished synthetic set; allowed: a folder with {inventory.RUN} and {PRODUCT}"
        )
    found = synthetic.load(folder / PRODUCT)
    judged = _evaluations(folder, choice.evaluation)
    if judged and isinstance(found, SyntheticStream):
        raise ValueError(
            f"{made['name']} is a generator, and the rows of a notebook say how many images it makes: name one of "
            "them, as in `ddlib export dim/accuracy --row DiM --ipc 10`"
        )
    if len(judged) > 1:
        told = dict(zip(judged, _told(list(judged.values())), strict=True))
        those = "; ".join(f"{name.removeprefix('evaluation-')}: {text}" for name, text in told.items())
        raise ValueError(f"{made['name']} was judged in {len(judged)} ways; choose by --evaluation: {those}")
    return replace(found, card=_card(made, kept)) if (kept := next(iter(judged.values()), None)) else found


def _evaluations(folder: Path, wanted: str | None) -> dict[str, Mapping[str, Any]]:
    """Name -> the whole evaluations of the set in `folder` whose names begin with `wanted`."""
    kept = {path.stem: files.read_json(path) for path in sorted(folder.glob(f"evaluation-{wanted or ''}*.json"))}
    if wanted and not kept:
        known = ", ".join(path.stem.removeprefix("evaluation-") for path in sorted(folder.glob("evaluation-*.json")))
        raise ValueError(f"evaluation={wanted!r}; known: {known or 'none'}")
    seal = read_seal(folder / PRODUCT)
    return {name: one for name, one in kept.items() if one["of"] == seal and _whole(one)}


def _whole(kept: Mapping[str, Any]) -> bool:
    return len(kept["networks"]) == kept["protocol"]["num_networks"]


def _told(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each evaluation in a few words: network, every setting that is not the same in all of them, and accuracy."""
    settings = [_settings(kept["protocol"]) for kept in judged]
    names = dict.fromkeys(name for one in settings for name in one)
    other = [name for name in names if name != "network" and len({str(one.get(name)) for one in settings}) > 1]
    return [
        ", ".join(
            [one["network"], *(f"{name} {one[name]}" for name in other if name in one), _accuracy(kept["accuracies"])]
        )
        for one, kept in zip(settings, judged, strict=True)
    ]


def _settings(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a protocol as the store has it, options of the network and what it leaves out among them."""
    plain = {name: value for name, value in protocol.items() if name != "options"}
    return dict(LATER) | plain | {f"options.{name}": value for name, value in protocol["options"].items()}


def _accuracy(accuracies: Sequence[float]) -> str:
    return f"{fmean(accuracies):.2f} % over {len(accuracies)}"


def _of_notebook(run: str, store: Path, choice: Choice) -> SyntheticSet | SyntheticStream:
    _check_applies(choice, f"the notebook {run}", ("profile", "row", "ipc", "network", "seed"))
    profile = choice.profile or "quick"
    names = notebooks.chosen([run], profile)
    if len(names) != 1:
        raise ValueError(f"run={run!r} names {len(names)} notebooks; allowed: one of {', '.join(names)}")
    cell = _row(names[0], notebooks.cells(names[0], profile), choice)
    seed = cell.seeds[0] if choice.seed is None else choice.seed
    if seed not in cell.seeds:
        raise ValueError(f"seed={seed}; {cell} has the seeds {', '.join(map(str, cell.seeds))}")
    workplace = Workplace("cpu", folder=store, progress="none")
    if not work.seed_finished(cell, seed, workplace):
        command = f"ddlib reproduce {names[0]} --profile {profile}"
        raise ValueError(f"{cell}, seed {seed} is not in the store {store}; `{command}` computes it")
    kept = files.read_json(work.evaluation_path(cell, seed, workplace))
    return replace(work.synthetic_set(cell, seed, workplace), card=_card(work.made(cell, seed, workplace), kept, cell))


def _row(name: str, cells: Sequence[Cell], choice: Choice) -> Cell:
    """The one cell that `choice` leaves of a notebook's."""
    wanted = {"label": choice.row, "ipc": choice.ipc, "tested_on": choice.network}
    asked = {key: value for key, value in wanted.items() if value is not None}
    left = {str(cell): cell for cell in cells if all(getattr(cell, key) == value for key, value in asked.items())}
    if len(left) != 1:
        known = "; ".join(left or map(str, cells))
        raise ValueError(f"{len(left)} rows of {name} fit; choose one by --row, --ipc and --tested-on of: {known}")
    return next(iter(left.values()))


def _card(made: Mapping[str, Any], kept: Mapping[str, Any], cell: Cell | None = None) -> Card:
    """The card of a set from what the store knows of its distillation and of one evaluation."""
    settings, info = made["settings"], datasets.describe(made["settings"]["dataset"])
    train, test = (datasets.fingerprint_of(info.name, split) for split in ("train", "test"))
    decided = {name: settings[name] for name in ("version", "hyperparameters")}
    judged, distilled = (results.joined(s["provenance"] for s in part["sittings"]) for part in (kept, made))
    return Card(
        name=f"{cell.set_name}, seed {made['seed']}" if cell else made["name"],
        method=settings["method"],
        dataset=info.name,
        licence=info.licence,
        whitened=settings["whitened"],
        train_fingerprint=train,
        test_fingerprint=test,
        protocol=kept["protocol"],
        seed=made["seed"],
        networks=kept["networks"],
        accuracies=kept["accuracies"],
        provenance=judged | {"distilled": distilled | decided},
        evaluation_version=evaluation.VERSION,
    )
