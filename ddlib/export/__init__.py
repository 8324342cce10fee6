"""Distilled sets that travel: a folder in a form that others read, with a card that says all that is known of it.

Every folder holds, besides the set in the form asked for, `card.json`, `README.md`, a list of checksums
(`manifest.json`), of a stream `generator.safetensors`, and, where one was trained, `network.safetensors`.
"""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddlib.data import datasets
from ddlib.data.synthetic import SyntheticSet, SyntheticStream, save
from ddlib.export import cards, network
from ddlib.export.choose import CHOICE, chosen
from ddlib.export.formats import FORMATS, LOSSES
from ddlib.export.network import FrozenNetwork
from ddlib.store import files

CARD, README, NETWORK = "card.json", "README.md", "network.safetensors"

NEAR = 0.5
"""Points that a network's accuracy may be off the one that is stated of it, by rounding on another machine."""


def export(
    source: SyntheticSet | SyntheticStream,
    to: str,
    folder: str | Path,
    *,
    network: FrozenNetwork | None = None,
    force: bool = False,
) -> Path:
    """Write a set or stream in the form `to` into a folder of its own, whole or not at all, and return the folder.

    A stream is written as the set that is drawn from it by the seed of its card (0 without a card), with the generator
    beside it; as safetensors it is the generator alone.

    Args:
        to: one of `FORMATS`.
        network: trained on it, to go with it (`ddlib.export.network.train`).  A UserWarning says where it is more than
            `NEAR` points off the accuracy that is stated of it.
        force: whether to replace a folder that an export wrote.

    Raises:
        ValueError: an unknown form, or a set that it cannot hold.
        FileExistsError: as `check_free`.
    """
    if to not in FORMATS:
        raise ValueError(f"unknown form to={to!r}; known: {', '.join(FORMATS)}")
    folder = Path(folder)
    check_free(folder, force=force)
    drawn = None
    if isinstance(source, SyntheticStream) and to != "safetensors":
        card = source.card if source.redraw is None else None  # of images drawn anew no single set was judged
        drawn = replace(source.frozen(source.card.seed if source.card else 0), card=card)
    synthetic = drawn or source
    lost = LOSSES[to](synthetic, source.card.dataset if source.card else "unknown") if to in LOSSES else []
    if to != "safetensors" and isinstance(source, SyntheticSet) and source.latents:
        lost.append("the latents that the images were rendered from are in the form safetensors alone")
    with files.whole_folder(folder) as part:
        part.mkdir()
        about = cards.about(source, drawn, folder.stem, lost)
        about["network"] = _save_network(network, source, part) if network else None
        FORMATS[to](part, synthetic, about)
        if drawn:
            save(source, part / "generator.safetensors")
        (part / CARD).write_text(json.dumps(about, indent=1), encoding="utf-8")
        (part / README).write_text(cards.readme(about, to), encoding="utf-8")
    return folder


def _save_network(trained: FrozenNetwork, source: SyntheticSet | SyntheticStream, part: Path) -> dict[str, Any]:
    """Write the network, and say what it is and reaches here, beside what the card states of it."""
    card = source.card
    accuracy = trained.accuracy(datasets.load(card.dataset, "test", zca=card.whitened))
    stated = card.accuracies[card.networks.index(trained.index)]
    if abs(accuracy - stated) > NEAR:
        text = f"network {trained.index} of {card.name} reaches {accuracy:.2f} % here, {stated:.2f} % are stated"
        warnings.warn(f"{text}: more than {NEAR} points apart", stacklevel=3)
    about = {"dataset": card.dataset, "zca": card.whitened, "accuracy": accuracy, "stated": stated, "set": card.name}
    digest = network.save(trained, part / NETWORK, about)
    return {"file": NETWORK, "index": trained.index, "accuracy": accuracy, "stated": stated, "sha256": digest}


def check_free(folder: Path, *, force: bool) -> None:
    """Raise FileExistsError for a folder that is there, unless it holds nothing but an export, and may be replaced."""
    if not folder.exists():
        return
    if not (folder.is_dir() and (folder / CARD).is_file()):
        raise FileExistsError(f"{folder} is there and is no export of ddlib's; allowed: a new folder")
    if foreign := files.foreign(folder):
        raise FileExistsError(f"{folder} holds {', '.join(foreign[:3])}, not of an export; allowed: a new folder")
    if not force:
        raise FileExistsError(f"{folder} is there already; --force replaces it")
