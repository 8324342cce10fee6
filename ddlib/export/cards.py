"""What an exported set says of itself: card.json for programs, README.md for people."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ddlib import __version__
from ddlib.data import datasets
from ddlib.data.augmentation import (
    CROP_RATIO,
    FAMILIES,
    FLIP_PROBABILITY,
    MAX_ANGLE,
    MAX_BRIGHTNESS,
    MAX_CONTRAST_CHANGE,
    MAX_SATURATION,
    MAX_ZOOM,
)
from ddlib.data.synthetic import SyntheticSet, SyntheticStream, label_kind
from ddlib.evaluation import Protocol
from ddlib.export.network import described

LAWS = {
    "color": f"x + b, b ~ U(-{MAX_BRIGHTNESS:g}, {MAX_BRIGHTNESS:g}); then (x - g) s + g, g the mean over the channels "
    f"of a pixel, s ~ U(0, {MAX_SATURATION:g}); then (x - g) c + g, g the mean over the image, "
    f"c ~ U({1 - MAX_CONTRAST_CHANGE:g}, {1 + MAX_CONTRAST_CHANGE:g})",
    "crop": "moved by whole pixels, down and across each uniform on -r..r, "
    f"r = int({CROP_RATIO:g} side + 0.5); zeros move in",
    "cutout": "zeros in a square of h = int(0.5 side + 0.5) pixels that begins at c - h // 2, down and "
    "across each c uniform on 0..side where h is even, 0..side - 1 where it is odd; clipped at the border",
    "flip": f"left and right exchanged with probability {FLIP_PROBABILITY:g}",
    "scale": "out(x, y) = in(s x, t y) about the centre, bilinear, zeros outside; "
    f"s and t each ~ U(1 / {MAX_ZOOM:g}, {MAX_ZOOM:g})",
    "rotate": "out(x, y) = in(x cos a - y sin a, x sin a + y cos a) in pixels about the centre, y down, bilinear, "
    f"zeros outside; a ~ U(-{MAX_ANGLE:g}, {MAX_ANGLE:g}) degrees",
}
"""Family of DSA -> what it does to an image x, and how its numbers are drawn."""


def in_words(strategy: str) -> dict[str, str]:
    """What a strategy does to a mini-batch, under "how", and what each of its families does; {} for "none"."""
    if strategy == "none":
        return {}
    joined = "+" in strategy
    own = set(strategy.split("+" if joined else "_"))
    families = [name for name in FAMILIES if name in own]
    which = "all of the families, one after another" if joined else "one of the families, drawn for the mini-batch"
    how = f"{which}; every image with numbers of its own; on images in the value space, whose 0 fills what is empty"
    return {"how": how} | {name: LAWS[name] for name in families}


VERSION = 1
"""Of the layout of card.json."""

LOADING = {
    "safetensors": """from ddlib import evaluation
from ddlib.data import synthetic
found = synthetic.load("synthetic.safetensors")
print(evaluation.again(found).accuracies, found.card.accuracies)""",
    "npz": """import numpy, torch
found = numpy.load("set.npz")
images, labels = torch.from_numpy(found["images"]), torch.from_numpy(found["labels"])""",
    "pt": """import torch
found = torch.load("set.pt", weights_only=True)
images, labels = found["images"], found["labels"]""",
    "png": """import numpy, torch, torchvision
space = numpy.load("space.npz")     # x = (pixels - mean) / std; of a whitened set (x - zca_mean) @ zca_whitening
found = torchvision.datasets.ImageFolder("images")""",
    "hf": """import datasets
found = datasets.load_dataset(".", split="train").with_format("torch")
images, labels = found["tensor"][:], found["label"][:]""",
    "ddranking": """import torch
images, labels = torch.load("images.pt"), torch.load("labels.pt")""",
    "dcbench": """import glob, torch
images, labels = torch.load(glob.glob("*/*/*/res_*.pt")[0])["data"][-1]""",
}
"""Format -> how a program reads it; all but the first need no ddlib."""


def about(
    source: SyntheticSet | SyntheticStream, drawn: SyntheticSet | None, name: str, lost: list[str]
) -> dict[str, Any]:
    """All that is known of a set that travels, as plain JSON.

    Args:
        source: the set, or the stream.
        drawn: of a stream the set that was drawn from it, where one is written.
        name: of a set without a card.
        lost: what the format does not keep, one sentence each.
    """
    card, shown = source.card, drawn or source
    content = {
        "format": "ddlib.export",
        "version": VERSION,
        "ddlib": __version__,
        "name": card.name if card else name,
        "method": card.method if card else str(source.provenance.get("method", "unknown")),
        "data": _data(source),
        "images": len(shown),
        "shape": list(shown.shape),
        "class_names": list(shown.class_names),
        "label_kind": label_kind(shown),
        "value_space": described(shown.space),
        "learning_rate": source.learning_rate,
        "augmentation": drawn.strategy if drawn else _trained_with(source),
        "recipe": None if card is None else _recipe(source),
        "stated": None if card is None else _stated(source, drawn),
        "generator": _generator(source, drawn),
        "lost": lost,
        "provenance": {"set": dict(source.provenance), "evaluation": dict(card.provenance) if card else None},
    }
    zca = shown.space.zca
    return content if zca is None else content | {"value_space": content["value_space"] | {"zca_eps": zca.eps}}


def _data(source: SyntheticSet | SyntheticStream) -> dict[str, Any]:
    """The real data: name, licence, fingerprints, and how they are whitened."""
    card = source.card
    if card is None:
        return {"name": "unknown", "licence": "unknown: that of the real data"}
    prints = {"train": card.train_fingerprint, "test": card.test_fingerprint}
    title = datasets.describe(card.dataset).title
    return {"name": card.dataset, "title": title, "licence": card.licence, "fingerprints": prints, "zca": card.whitened}


def _recipe(source: SyntheticSet | SyntheticStream) -> dict[str, Any]:
    """The whole evaluation protocol, defaults and what follows from them included."""
    protocol = Protocol(**source.card.protocol)
    follows = {
        "learning_rate": source.learning_rate or protocol.lr,
        "epochs_gone_through": protocol.rounds,
        "divided_by_ten_after_epoch": protocol.drop_epoch,
        "updates": protocol.updates(len(source)),
        "strategy": protocol.strategy(_trained_with(source)),
    }
    laws = in_words(follows["strategy"])
    return {"protocol": asdict(protocol), "seed": source.card.seed, "follows": follows, "augmentation": laws}


def _trained_with(source: SyntheticSet | SyntheticStream) -> str:
    """The strategy of its own that networks are trained with: of a stream that never redraws, that of the one draw."""
    once = isinstance(source, SyntheticStream) and source.redraw is None
    return source.frozen_strategy if once else source.strategy


def _stated(source: SyntheticSet | SyntheticStream, drawn: SyntheticSet | None) -> dict[str, Any]:
    card = source.card
    of = "this set"
    if isinstance(source, SyntheticStream) and source.redraw is not None:
        of = f"the generator, which draws its images anew after {source.redraw} epoch(s), not of one draw"
    numbers = {"accuracies": list(card.accuracies), "networks": list(card.networks)}
    return {"of": of, "mean": card.mean, "std": card.std, "n": card.n, "unit": "percent of the test images"} | numbers


def _generator(source: SyntheticSet | SyntheticStream, drawn: SyntheticSet | None) -> dict[str, Any] | None:
    if isinstance(source, SyntheticSet):
        return None
    seed = drawn.provenance["frozen"]["seed"] if drawn else None
    return {"ipc": source.ipc, "redraw": source.redraw, "seed_of_draw": seed, "bytes": source.bytes_stored}


def readme(about: Mapping[str, Any], to: str) -> str:
    """README.md of a folder in the format `to`."""
    parts = [
        f"# {about['name']}",
        f"A synthetic set that stands for {about['data'].get('title', 'real data')}, made by `{about['method']}` "
        f"and exported by ddlib {about['ddlib']}. All that is said here is in `card.json` too.",
        _table(about),
        _accuracy(about),
        f"## To load it\n\n```python\n{LOADING[to]}\n```",
        _network(about),
        "## What this form does not keep\n\n" + "\n".join(f"- {one}" for one in about["lost"] or ["nothing is lost"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(about: Mapping[str, Any]) -> str:
    space, data = about["value_space"], about["data"]
    labels = {"class": "class numbers", "logits": "logits; the target is their softmax"}[about["label_kind"]]
    learnt = f"{about['learning_rate'] or 0:g}, learnt; it takes the place of the recipe's lr"
    rate = "none of its own" if about["learning_rate"] is None else learnt
    rows = {
        "real data": data["name"],
        "licence of the real data": data["licence"],
        "images": f"{about['images']} of {'x'.join(map(str, about['shape']))}",
        "classes, in the order of the labels": ", ".join(about["class_names"]),
        "labels": labels,
        "value space": f"{space['name']}; mean {space['mean']}, std {space['std']}",
        "learning rate": rate,
        "augmentation": about["augmentation"],
        "fingerprint of the real training set": f"`{data.get('fingerprints', {}).get('train', 'unknown')}`",
    }
    if made := about["generator"]:
        kept = "`generator.safetensors`" if made["seed_of_draw"] is not None else "this file"
        rows["drawn"] = f"by a generator ({made['bytes']} bytes, {kept}), {made['ipc']} images a class"
        rows["seed of the draw"] = str(made["seed_of_draw"])
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {text} |" for name, text in rows.items())


def _accuracy(about: Mapping[str, Any]) -> str:
    stated, recipe = about["stated"], about["recipe"]
    if stated is None:
        return "## Accuracy\n\nNone is stated: the set was not judged."
    spread = "" if stated["std"] is None else f" +- {stated['std']:.2f} (sample deviation)"
    each = ", ".join(f"{value:.2f}" for value in stated["accuracies"])
    settings = "\n".join(f"| {name} | {value} |" for name, value in recipe["protocol"].items())
    follows = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in recipe["follows"].items())
    return (
        f"## Accuracy\n\n{stated['mean']:.2f} %{spread} of the test images over {stated['n']} networks ({each}), with "
        f"the seed {recipe['seed']}. It is the accuracy of {stated['of']}.\n\n"
        f"| recipe | |\n|---|---|\n{settings}\n\nFrom which follows:\n\n{follows}{_augmentation(recipe)}"
    )


def _augmentation(recipe: Mapping[str, Any]) -> str:
    lines = "\n".join(f"- {name}: {text}" for name, text in recipe["augmentation"].items())
    return f"\n\nThe augmentation (DSA):\n\n{lines}" if lines else ""


def _network(about: Mapping[str, Any]) -> str:
    network, data = about.get("network"), about["data"]
    if network is None:
        return ""
    return (
        f"## A trained network\n\n`{network['file']}` is network {network['index']} of the evaluation, trained on this "
        f"set: {network['accuracy']:.2f} % of the test images here, {network['stated']:.2f} % stated. Its SHA-256 is "
        f"`{network['sha256']}`. `ddlib.export.network.load` reads it; it is tested on "
        f"`ddlib.data.datasets.load({data['name']!r}, 'test', zca={data['zca']!r})`, in the value space of the set."
    )
