"""ImageNet's class lists, and images read from class folders into one tensor."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SYNSETS = {
    0: ("n01440764", "tench"),
    9: ("n01518878", "ostrich"),
    11: ("n01531178", "goldfinch"),
    13: ("n01534433", "junco"),
    19: ("n01592084", "chickadee"),
    22: ("n01614925", "bald eagle"),
    24: ("n01622779", "great grey owl"),
    72: ("n01773157", "black and gold garden spider"),
    76: ("n01774750", "tarantula"),
    84: ("n01806143", "peacock"),
    88: ("n01818515", "macaw"),
    89: ("n01819313", "sulphur-crested cockatoo"),
    90: ("n01820546", "lorikeet"),
    92: ("n01828970", "bee eater"),
    93: ("n01829413", "hornbill"),
    94: ("n01833805", "hummingbird"),
    96: ("n01843383", "toucan"),
    100: ("n01860187", "black swan"),
    102: ("n01872401", "echidna"),
    129: ("n02006656", "spoonbill"),
    130: ("n02007558", "flamingo"),
    135: ("n02013706", "limpkin"),
    136: ("n02017213", "European gallinule"),
    139: ("n02025239", "ruddy turnstone"),
    144: ("n02051845", "pelican"),
    145: ("n02056570", "king penguin"),
    148: ("n02071294", "killer whale"),
    155: ("n02086240", "Shih-Tzu"),
    159: ("n02087394", "Rhodesian ridgeback"),
    162: ("n02088364", "beagle"),
    167: ("n02089973", "English foxhound"),
    182: ("n02093754", "Border terrier"),
    193: ("n02096294", "Australian terrier"),
    207: ("n02099601", "golden retriever"),
    217: ("n02102040", "English springer"),
    229: ("n02105641", "Old English sheepdog"),
    255: ("n02111129", "Leonberg"),
    258: ("n02111889", "Samoyed"),
    259: ("n02112018", "Pomeranian"),
    262: ("n02112706", "Brabancon griffon"),
    273: ("n02115641", "dingo"),
    275: ("n02116738", "African hunting dog"),
    281: ("n02123045", "tabby"),
    282: ("n02123159", "tiger cat"),
    283: ("n02123394", "Persian cat"),
    284: ("n02123597", "Siamese cat"),
    285: ("n02124075", "Egyptian cat"),
    287: ("n02127052", "lynx"),
    289: ("n02128757", "snow leopard"),
    290: ("n02128925", "jaguar"),
    291: ("n02129165", "lion"),
    292: ("n02129604", "tiger"),
    309: ("n02206856", "bee"),
    321: ("n02276258", "admiral"),
    322: ("n02277742", "ringlet"),
    324: ("n02280649", "cabbage butterfly"),
    326: ("n02281787", "lycaenid"),
    333: ("n02342885", "hamster"),
    339: ("n02389026", "sorrel"),
    364: ("n02457408", "three-toed sloth"),
    376: ("n02489166", "proboscis monkey"),
    392: ("n02606052", "rock beauty"),
    440: ("n02823428", "beer bottle"),
    482: ("n02979186", "cassette player"),
    491: ("n03000684", "chain saw"),
    492: ("n03014705", "chest"),
    497: ("n03028079", "church"),
    500: ("n03042490", "cliff dwelling"),
    535: ("n03208938", "disk brake"),
    554: ("n03344393", "fireboat"),
    557: ("n03355925", "flagpole"),
    565: ("n03393912", "freight car"),
    566: ("n03394916", "French horn"),
    569: ("n03417042", "garbage truck"),
    571: ("n03425413", "gas pump"),
    574: ("n03445777", "golf ball"),
    576: ("n03447447", "gondola"),
    599: ("n03530642", "honeycomb"),
    605: ("n03584254", "iPod"),
    685: ("n03841143", "odometer"),
    688: ("n03857828", "oscilloscope"),
    701: ("n03888257", "parachute"),
    713: ("n03924679", "photocopier"),
    739: ("n03992509", "potter's wheel"),
    758: ("n04067472", "reel"),
    779: ("n04146614", "school bus"),
    783: ("n04153751", "screw"),
    816: ("n04277352", "spindle"),
    842: ("n04371430", "swimming trunks"),
    853: ("n04417672", "thatch"),
    874: ("n04487081", "trolleybus"),
    916: ("n06359193", "web site"),
    923: ("n07579787", "plate"),
    943: ("n07718472", "cucumber"),
    945: ("n07720875", "bell pepper"),
    948: ("n07742313", "Granny Smith"),
    949: ("n07745940", "strawberry"),
    950: ("n07747607", "orange"),
    951: ("n07749582", "lemon"),
    952: ("n07753113", "fig"),
    953: ("n07753275", "pineapple"),
    954: ("n07753592", "banana"),
    957: ("n07768694", "pomegranate"),
    984: ("n11879895", "rapeseed"),
    986: ("n12057211", "yellow lady's slipper"),
    987: ("n12144580", "corn"),
    995: ("n13044778", "earthstar"),
}
"""Position among the 1,000 sorted synsets of ILSVRC-2012 -> (WordNet id, first name), for the classes used here."""

SUBSETS = {
    "imagenet_a": (255, 376, 984, 364, 500, 986, 333, 576, 148, 135),
    "imagenet_b": (129, 916, 90, 275, 995, 874, 102, 259, 685, 139),
    "imagenet_c": (565, 94, 554, 535, 92, 392, 291, 136, 324, 11),
    "imagenet_d": (9, 258, 13, 262, 19, 339, 321, 24, 93, 322),
    "imagenet_e": (816, 96, 100, 145, 739, 713, 783, 76, 688, 326),
    "imagenette": (0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
    "imagewoof": (193, 182, 258, 162, 155, 167, 159, 273, 207, 229),
    "imagebirds": (84, 130, 88, 144, 145, 22, 96, 9, 100, 89),
    "imagefruits": (953, 954, 949, 950, 951, 957, 952, 945, 943, 948),
    "imagecats": (281, 282, 283, 284, 285, 291, 292, 290, 289, 287),
    "imageyellow": (309, 986, 954, 951, 987, 779, 599, 291, 72, 11),
}
"""Ten positions a subset, in the order of their labels (as MTT, GLaD and LD3M name them)."""

TINY_IMAGENET10 = (283, 440, 492, 557, 605, 758, 842, 853, 923, 950)
"""The ten classes of `tiny_imagenet10`."""

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}


def class_folders(folder: Path, positions: Sequence[int]) -> list[Path]:
    """The folders of the named classes under `folder`, one a label.

    Args:
        folder: holds a folder for each class, named by its WordNet id; other classes may be missing.
        positions: keys of `SYNSETS`.

    Returns:
        One path for each of `positions`, in their order.

    Raises:
        FileNotFoundError: a class has no folder.
        ValueError: there are 1,000 folders, and sorted they are not ILSVRC-2012's.
    """
    wnids = [SYNSETS[position][0] for position in positions]
    missing = [wnid for wnid in wnids if not (folder / wnid).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {len(missing)} of {len(wnids)} classes: {', '.join(missing)}")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(found) == 1000 and [found[position] for position in positions] != wnids:
        raise ValueError(f"{folder} holds 1000 classes, but not those of ILSVRC-2012: {wnids} are out of place")
    return [folder / wnid for wnid in wnids]


def images_in(folder: Path) -> list[Path]:
    """The image files (JPEG, PNG, WebP) of one class, sorted by name: in `folder/images` if there is one.

    Raises:
        ValueError: there are none.
    """
    inner = folder / "images"
    where = inner if inner.is_dir() else folder
    files = sorted(path for path in where.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"{where} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return files


def decode(files: Sequence[Path], shape: tuple[int, int, int], *, crop: bool = False) -> Tensor:
    """Read images into one tensor, several threads at a time.

    The whole tensor lies in memory: 49 kB an image at 128x128, 197 kB at 256x256 (ten ImageNet classes of 1,300
    images: 0.64 GB and 2.6 GB).

    Args:
        files: one path an image.
        shape: (3, H, W) of the result, H = W with `crop`.
        crop: resize the short side to H (bilinear with antialiasing, on 8-bit pixels) and crop the centre.
            Otherwise an image of another size is refused.

    Returns:
        (B, 3, H, W) uint8.

    Raises:
        ValueError: a file cannot be decoded, or has another size; the message names it.
    """
    pixels = torch.empty(len(files), *shape, dtype=torch.uint8)
    for index, image in enumerate(_decoded(files, shape[1:], crop)):
        pixels[index] = image
    return pixels


def _decoded(files: Sequence[Path], size: tuple[int, int], crop: bool) -> Iterator[Tensor]:
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda path: _decode_one(path, size, crop), files)


def _decode_one(path: Path, size: tuple[int, int], crop: bool) -> Tensor:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is truncated or corrupt ({error})") from error
    if crop:
        from torchvision.transforms import functional  # takes seconds to import, and most sets do not need it

        image = functional.center_crop(functional.resize(image, size[0]), size[0])
    if (image.height, image.width) != size:
        raise ValueError(f"{path} is {image.height}x{image.width}, expected {size[0]}x{size[1]}")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
