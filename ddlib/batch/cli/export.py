"""`ddlib export`: a distilled set as others read it."""

import argparse
import json
import re
from pathlib import Path

from ddlib import OUTPUT
from ddlib.study.parameters import PROFILES

FORMS = ("npz", "pt", "png", "hf", "safetensors", "ddranking", "dcbench")
"""`ddlib.export.FORMATS`, without importing torch for it."""


def add(commands: argparse._SubParsersAction) -> None:
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
