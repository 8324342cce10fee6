"""`ddlib prior`: latent diffusion models got elsewhere, as LD3M's notebooks read them."""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
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
