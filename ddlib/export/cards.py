"""What an exported set says of itself: card.json for programs, README.md for people."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Template

from ddlib import __version__
from ddlib.data import datasets
from ddlib.data.augmentation import FAMILIES
from ddlib.data.synthetic import SyntheticSet, SyntheticStream, label_kind
from ddlib.evaluation import Protocol
from ddlib.export.network import described

VERSION = 1
"""Of the layout of card.json."""

LAWS = {
    "color": "x + b, b ~ U(-0.5, 0.5); then (x - g) s + g, g the mean over the channels of a pixel, s ~ U(0, 2); then "
    "(x - g) c + g, g the mean over the image, c ~ U(0.5, 1.5)",
    "crop": "moved by whole pixels, down and across each uniform on -r..r, r = int(0.125 side + 0.5); zeros move in",
    "cutout": "zeros in a square of h = int(0.5 side + 0.5) pixels that begins at c - h // 2, down and "
    "across each c uniform on 0..side where h is even, 0..side - 1 where it is odd; clipped at the border",
    "flip": "left and right exchanged with probability 0.5",
    "scale": "out(x, y) = in(s x, t y) about the centre, bilinear, zeros outside; s and t each ~ U(1 / 1.2, 1.2)",
    "rotate": "out(x, y) = in(x cos a - y sin a, x sin a + y cos a) in pixels about the centre, y down, bilinear, "
    "zeros outside; a ~ U(-15, 15) degrees",
}
"""Family of DSA -> what it does to an image x, and how its numbers are drawn."""


def about(
    source: SyntheticSet | SyntheticStream, drawn: SyntheticSet | None, name: str, lost: list[str]
) -> dict[str, Any]:
    """All that is known of a set or stream that travels, as plain JSON.

    Args:
        drawn: of a stream the set that was drawn from it, where one is written.
        name: of a set without a card.
        lost: what the format does not keep, one sentence each.
    """
    card, written = source.card, drawn or source
    once = isinstance(source, SyntheticStream) and source.redraw is None
    strategy = source.frozen_strategy if once else source.strategy  # that networks were trained with
    space = described(written.space)
    if written.space.zca is not None:
        space["zca_eps"] = written.space.zca.eps
    content = {
        "format": "ddlib.export",
        "version": VERSION,
        "ddlib": __version__,
        "name": card.name if card else name,
        "method": card.method if card else str(source.provenance.get("method", "unknown")),
        "data": {"name": "unknown", "licence": "unknown: that of the real data"},
        "images": len(written),
        "shape": list(written.shape),
        "class_names": list(written.class_names),
        "label_kind": label_kind(written),
        "value_space": space,
        "learning_rate": source.learning_rate,
        "augmentation": drawn.strategy if drawn else strategy,
        "recipe": None,
        "stated": None,
        "generator": None,
        "lost": lost,
        "provenance": {"set": dict(source.provenance), "evaluation": dict(card.provenance) if card else None},
    }
    if isinstance(source, SyntheticStream):
        content["generator"] = {
            "ipc": source.ipc,
            "redraw": source.redraw,
            "seed_of_draw": drawn.provenance["frozen"]["seed"] if drawn else None,
            "bytes": source.bytes_stored,
        }
    return content if card is None else content | _judged(source, strategy)


def _judged(source: SyntheticSet | SyntheticStream, strategy: str) -> dict[str, Any]:
    """What the card adds: the real data, the whole evaluation protocol with what follows from it, the accuracies."""
    card, protocol = source.card, Protocol(**source.card.protocol)
    follows = {
        "learning_rate": source.learning_rate or protocol.lr,
        "epochs_gone_through": protocol.rounds,
        "divided_by_ten_after_epoch": protocol.drop_epoch,
        "updates": protocol.updates(len(source)),
        "strategy": protocol.strategy(strategy),
    }
    redraw = getattr(source, "redraw", None)
    anew = f"the generator, which draws its images anew after {redraw} epoch(s), not of one draw"
    return {
        "data": {
            "name": card.dataset,
            "title": datasets.describe(card.dataset).title,
            "licence": card.licence,
            "fingerprints": {"train": card.train_fingerprint, "test": card.test_fingerprint},
            "zca": card.whitened,
        },
        "recipe": {
            "protocol": asdict(protocol),
            "seed": card.seed,
            "follows": follows,
            "augmentation": in_words(follows["strategy"]),
        },
        "stated": {
            "of": "this set" if redraw is None else anew,
            "mean": card.mean,
            "std": card.std,
            "n": card.n,
            "unit": "percent of the test images",
            "accuracies": list(card.accuracies),
            "networks": list(card.networks),
        },
    }


def in_words(strategy: str) -> dict[str, str]:
    """What a strategy does to a mini-batch, under "how", and what each of its families does; {} for "none"."""
    if strategy == "none":
        return {}
    joined = "+" in strategy
    names = strategy.split("+" if joined else "_")
    which = "all of the families, one after another" if joined else "one of the families, drawn for the mini-batch"
    how = f"{which}; every image with numbers of its own; on images in the value space, whose 0 fills what is empty"
    return {"how": how} | {name: LAWS[name] for name in FAMILIES if name in names}


def readme(about: Mapping[str, Any], form: str) -> str:
    """README.md of a folder in the form, from its card."""
    text = Path(__file__).with_name("README.md.jinja").read_text(encoding="utf-8")
    return Template(text, trim_blocks=True, keep_trailing_newline=True).render(about, form=form)
