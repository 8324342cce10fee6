"""Distilled sets that travel: a folder in a form that others read, with a card that says all that is known of it.

    found = chosen("atom/accuracy", OUTPUT / "runs", Choice(row="ATOM", ipc=1))
    export(found, "hf", "atom-digits", network=network.train(found))

Every folder holds, besides the set in the form asked for, `card.json`, `README.md`, a list of checksums
(`manifest.json`), of a stream `generator.safetensors`, and, where one was trained, `network.safetensors`.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddlib.data import datasets, synthetic
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.export import cards, formats, network
from ddlib.export.choose import Choice, chosen
from ddlib.export.network import FrozenNetwork
from ddlib.store import files

__all__ = ["FORMATS", "Choice", "Form", "FrozenNetwork", "check_free", "chosen", "export"]

CARD, README, NETWORK = "card.json", "README.md", "network.safetensors"

NEAR = 0.5
"""Points that a network's accuracy may be off the one that is stated of it, by rounding on another machine."""


@dataclass(frozen=True)
class Form:
    """A form that a set can travel in.

    write: (folder, set, about) -> the files; None: `ddlib.data.synthetic.save`.
    losses: (set, name of the data) -> what it does not keep, a sentence each.
    """

    write: Callable[[Path, SyntheticSet, Mapping[str, Any]], None] | None
    losses: Callable[[SyntheticSet, str], list[str]] = lambda found, data: []


FORMATS = {
    "npz": Form(formats.write_npz),
    "pt": Form(formats.write_pt),
    "png": Form(formats.write_png, lambda found, data: formats.picture_losses(found)),
    "hf": Form(
        formats.write_parquet, lambda found, data: [f"of the pictures: {one}" for one in formats.picture_losses(found)]
    ),
    "safetensors": Form(None),
    "ddranking": Form(formats.write_ddranking, formats.ddranking_losses),
    "dcbench": Form(formats.write_dcbench, formats.dcbench_losses),
}
"""Name -> form."""


def export(
    source: SyntheticSet | SyntheticStream,
    to: str,
    folder: str | Path,
    *,
    network: FrozenNetwork | None = None,
    force: bool = False,
) -> Path:
    """Write a set or stream in the form `to` into a folder of its own, whole or not at all.

    A stream is written as the set that is drawn from it by the seed of its card (0 without a card), with the generator
    beside it; as safetensors it is the generator alone.

    Args:
        source: on any device.
        to: one of `FORMATS`.
        folder: a new one.
        network: trained on it, to go with it; see `ddlib.export.network.train`.
        force: whether to replace a folder that an export wrote.

    Returns:
        The folder.

    Warns:
        UserWarning: the network is more than `NEAR` points off the accuracy that is stated of it.

    Raises:
        ValueError: an unknown form, or a set that it cannot hold.
        FileExistsError: there is something of the name already, and it is no export or `force` is False.
        OSError: the folder cannot be written.
    """
    if to not in FORMATS:
        raise ValueError(f"unknown form to={to!r}; known: {', '.join(FORMATS)}")
    folder = Path(folder)
    check_free(folder, force=force)
    drawn = _drawn(source) if to != "safetensors" and isinstance(source, SyntheticStream) else None
    shown, data = drawn or source, source.card.dataset if source.card else "unknown"
    lost = FORMATS[to].losses(shown, data)
    if to != "safetensors" and isinstance(source, SyntheticSet) and source.latents:
        lost = [*lost, "the latents that the images were rendered from are in the form safetensors alone"]
    with files.whole_folder(folder) as part:
        part.mkdir()
        about = cards.about(source, drawn, folder.stem, lost)
        about |= {"network": None if network is None else _keep(network, source, part)}
        _write(to, part, source, shown, about)
    return folder


def _write(to: str, part: Path, source: Any, shown: SyntheticSet, about: Mapping[str, Any]) -> None:
    """The files of the form, the generator of a stream, and the two cards."""
    if (write := FORMATS[to].write) is None:
        synthetic.save(source, part / "synthetic.safetensors")
    else:
        write(part, shown, about)
    if shown is not source:
        synthetic.save(source, part / "generator.safetensors")
    (part / CARD).write_text(json.dumps(about, indent=1), encoding="utf-8")
    head = formats.head(about) if to == "hf" else ""
    (part / README).write_text(head + cards.readme(about, to), encoding="utf-8")


def _drawn(stream: SyntheticStream) -> SyntheticSet:
    """The set that stands for a stream; it is the one its networks were trained on where the stream never redraws."""
    seed = stream.card.seed if stream.card else 0
    return replace(stream.frozen(seed), card=stream.card if stream.redraw is None else None)


def _keep(kept: FrozenNetwork, source: SyntheticSet | SyntheticStream, part: Path) -> dict[str, Any]:
    """Write the network, and say what it is and reaches here, beside what the card states of it."""
    card = source.card
    test = datasets.load(card.dataset, "test", zca=card.whitened)
    accuracy, stated = kept.accuracy(test), card.accuracies[card.networks.index(kept.index)]
    if abs(accuracy - stated) > NEAR:
        told = f"network {kept.index} of {card.name} reaches {accuracy:.2f} % here, {stated:.2f} % are stated"
        warnings.warn(f"{told}: more than {NEAR} points apart", stacklevel=3)
    told = {"dataset": card.dataset, "zca": card.whitened, "accuracy": accuracy, "stated": stated, "set": card.name}
    digest = network.save(kept, part / NETWORK, told)
    return {"file": NETWORK, "index": kept.index, "accuracy": accuracy, "stated": stated, "sha256": digest}


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a folder that is there, unless it is an export that may be replaced.

    Raises:
        FileExistsError: as `export`.
    """
    if not folder.exists():
        return
    if not (folder.is_dir() and (folder / CARD).is_file()):
        raise FileExistsError(f"{folder} is there and is no export of ddlib's; allowed: a new folder")
    if other := files.foreign(folder):
        raise FileExistsError(f"{folder} holds {', '.join(other[:3])}, not of an export; allowed: a new folder")
    if not force:
        raise FileExistsError(f"{folder} is there already; --force replaces it")
