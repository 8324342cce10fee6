"""The one file that holds a synthetic set or stream.

It is a safetensors file: `images`, `labels`, of a whitened set the tensors of its ZCA, and, of one rendered from
latents, `latents.*`; or, of a stream, `generator.*`.  The rest is JSON in the header under "ddlib", with a checksum
over all of it.  A set that travels has its card there too, under "card"; those of the store have none.  Any reader of
safetensors can open it, and none executes anything that stands in it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ddlib.data.synthetic.card import Card
from ddlib.data.synthetic.images import SyntheticSet
from ddlib.data.synthetic.stream import SyntheticStream
from ddlib.store.files import read_tensors, write_tensors
from ddlib.data.whitening import ValueSpace, ZCA

SET, STREAM = "ddlib.synthetic", "ddlib.stream"
"""What the header of a file calls its kind."""

VERSIONS = {SET: 2, STREAM: 1}
"""The newest version of each kind's layout that `load` reads, and the one that `save` writes."""

SETTINGS = ("width", "latent", "conditioning", "strategy", "frozen_strategy", "ipc", "redraw")
"""Fields of a stream that stand in the header as they are."""

_ZCA = ("mean", "whitening", "unwhitening")
_PREFIX = "generator."
_LATENTS = "latents."


def save(synthetic: SyntheticSet | SyntheticStream, path: str | Path) -> None:
    """Write `synthetic` to one safetensors file, whole or not at all.

    The bytes go to a temporary file in the same folder, which is synced and then renamed: whoever reads `path` sees
    the old file or the new one.  The folder is made where it is missing.

    Args:
        synthetic: on any device.
        path: of the file; one that is there is replaced.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    kind = STREAM if isinstance(synthetic, SyntheticStream) else SET
    tensors, header = (_stream if kind == STREAM else _set)(synthetic)
    common = {
        "format": kind,
        "version": VERSIONS[kind],
        "class_names": list(synthetic.class_names),
        "mean": list(synthetic.space.mean),
        "std": list(synthetic.space.std),
        "provenance": dict(synthetic.provenance),
    }
    if synthetic.card is not None:
        common |= {"card": synthetic.card.to_json(), "label_kind": label_kind(synthetic)}
        common |= {"value_space": synthetic.space.name}
    write_tensors(Path(path), tensors, common | header)


def label_kind(synthetic: SyntheticSet | SyntheticStream) -> str:
    """What the labels are: "class" numbers, or "logits", whose softmax is the target."""
    return "logits" if isinstance(synthetic, SyntheticSet) and synthetic.is_soft else "class"


def load(path: str | Path) -> SyntheticSet | SyntheticStream:
    """Read what `save` wrote, bit by bit, onto the CPU.

    Args:
        path: of the file.

    Returns:
        The set, or the stream.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is truncated or corrupt, another program's, or of a newer format; the message names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no synthetic set at {path}")
    tensors, header = read_tensors(Path(path))
    kind = str(header.get("format"))
    if kind not in VERSIONS:
        known = " or ".join(map(repr, VERSIONS))
        raise ValueError(f"{path} holds no synthetic set: its header does not say {known}")
    try:
        if header["version"] > VERSIONS[kind]:
            raise ValueError(f"format version {header['version']}; this ddlib reads up to {VERSIONS[kind]}")
        return (_to_stream if kind == STREAM else _to_set)(header, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _set(synthetic: SyntheticSet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, zca = {"images": synthetic.images, "labels": synthetic.labels}, synthetic.space.zca
    if zca is not None:
        tensors |= {f"zca.{name}": getattr(zca, name) for name in _ZCA}
    tensors |= {f"{_LATENTS}{name}": tensor for name, tensor in synthetic.latents.items()}
    eps = None if zca is None else zca.eps
    return tensors, {"zca_eps": eps, "strategy": synthetic.strategy, "learning_rate": synthetic.learning_rate}


def _to_set(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SyntheticSet:
    zca = None
    if header["zca_eps"] is not None:
        zca = ZCA(**{name: tensors[f"zca.{name}"] for name in _ZCA}, eps=header["zca_eps"])
    return SyntheticSet(
        images=tensors["images"],
        labels=tensors["labels"],
        class_names=tuple(header["class_names"]),
        space=ValueSpace(tuple(header["mean"]), tuple(header["std"]), zca),
        strategy=header["strategy"],
        learning_rate=header["learning_rate"],
        provenance=header["provenance"],
        latents={name.removeprefix(_LATENTS): t for name, t in tensors.items() if name.startswith(_LATENTS)},
        card=_card(header),
    )


def _stream(synthetic: SyntheticStream) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f"{_PREFIX}{name}": tensor for name, tensor in synthetic.generator.items()}
    return tensors, {"shape": list(synthetic.shape)} | {name: getattr(synthetic, name) for name in SETTINGS}


def _to_stream(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SyntheticStream:
    return SyntheticStream(
        generator={name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()},
        shape=tuple(header["shape"]),
        class_names=tuple(header["class_names"]),
        space=ValueSpace(tuple(header["mean"]), tuple(header["std"])),
        provenance=header["provenance"],
        card=_card(header),
        **{name: header[name] for name in SETTINGS},
    )


def _card(header: Mapping[str, Any]) -> Card | None:
    return Card.from_json(header["card"]) if "card" in header else None
