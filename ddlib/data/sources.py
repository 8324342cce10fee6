"""The catalogue: what is known of each data set before it is read."""

from dataclasses import dataclass

from ddlib.data.imagenet import SUBSETS, SYNSETS, TINY_IMAGENET10

SPLITS = ("train", "test")

TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    Args:
        name: as `ddlib.data.datasets.load` takes it.
        title: as a text calls it.
        shape: (C, H, W) of an image.
        num_classes: K.
        class_names: K names, in the order of the labels; empty where the data bring them (Tiny ImageNet).
        mean: C values in [0, 1], subtracted from pixels in [0, 1].
        std: C values, by which the difference is divided.
        sizes: (images in train, images in test); None where it is taken as found.
        licence: the terms of use, in words.
        how_to_get: where the files come from and how they must lie, in words.
        location: the folder or file looked for under the data folder; empty for what scikit-learn brings.
        layout: how the files lie: "packaged", "idx", "cifar", "svhn", "tiny" or "folders".
        downloadable: whether `ddlib.data.datasets.get` can fetch it.
        positions: for "folders", the classes as keys of `ddlib.data.imagenet.SYNSETS`, in the order of the labels.
        cropped: for "folders", images of any size are resized and cropped to `shape`.
        fingerprints: `ddlib.data.readers.fingerprint` of (train, test) as they should be, None where not known.
        exact: the pixels stand in the files as they are, so another fingerprint means other data.  Otherwise they
            come out of a JPEG or WebP decoder, whose versions may differ in the last bit.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: tuple[int | None, int | None]
    licence: str
    how_to_get: str
    location: str
    layout: str
    downloadable: bool = False
    positions: tuple[int, ...] = ()
    cropped: bool = False
    fingerprints: tuple[str, str] | None = None
    exact: bool = True


_TEN_DIGITS = tuple("0123456789")
_FASHION_CLASSES = "T-shirt/top|Trouser|Pullover|Dress|Coat|Sandal|Shirt|Sneaker|Bag|Ankle boot"
_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_LICENCE = "non-commercial research and education (ImageNet's terms of access)"
_IMAGENET_STEPS = (
    "ImageNet asks for an account and the acceptance of its terms at image-net.org.  From ILSVRC-2012 take the "
    "training images and the 50,000 validation images, sort the latter into class folders too, and lay both out as "
    "imagenet/train/<wnid>/*.JPEG and imagenet/val/<wnid>/*.JPEG under the data folder.  The folders of the ten "
    "classes are enough."
)
_DOWNLOAD = "downloaded through torchvision, in torchvision's layout"


def _classes(positions: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(SYNSETS[position][1] for position in positions)


def _imagenet(subset: str, size: int) -> DatasetInfo:
    positions = SUBSETS[subset]
    return DatasetInfo(
        name=f"{subset}_{size}", title=f"{subset}, ten ImageNet classes at {size}x{size}",
        shape=(3, size, size), num_classes=len(positions), class_names=_classes(positions),
        mean=_IMAGENET_MEAN, std=_IMAGENET_STD, sizes=(None, 50 * len(positions)),
        licence=_IMAGENET_LICENCE, how_to_get=_IMAGENET_STEPS,
        location="imagenet", layout="folders", positions=positions, cropped=True, exact=False,
    )  # fmt: skip


def _reduced_imagenette(size: int) -> DatasetInfo:
    return DatasetInfo(
        name=f"imagenette{size}", title=f"the reduced ImageNette of imagenette128 at {size}x{size}",
        shape=(3, size, size), num_classes=10, class_names=_classes(SUBSETS["imagenette"]),
        mean=_IMAGENET_MEAN, std=_IMAGENET_STD, sizes=(4000, 1000), licence=_IMAGENET_LICENCE,
        how_to_get="The files of imagenette128, resized with antialiasing as they are read.  Its results are no "
        "paper's.",
        location="imagenette128", layout="folders", positions=SUBSETS["imagenette"], cropped=True, exact=False,
        fingerprints=_REDUCED_IMAGENETTE[size],
    )  # fmt: skip


_REDUCED_IMAGENETTE = {
    32: (
        "a7d354954e8a825327179010e52408ed639d5c4162054dfd7d0f9cb19b16328c",
        "705c57f9c1b926d65322781b409fc3a5f7a10c2a14e5893084b689bc3d38bad3",
    ),
    64: (
        "f73d1ab725da7a4d1ad919c60ae6547bbde9b34cc751275a771705f66038571b",
        "9274986bb5f2fd0c01c9d2dd0551e476bc8d574cf984691982a2755d77b1bc5b",
    ),
}

_LISTED = (
    DatasetInfo(
        name="digits", title="the handwritten digits of scikit-learn at 16x16",
        shape=(1, 16, 16), num_classes=10, class_names=_TEN_DIGITS, mean=(0.3049,), std=(0.3183,), sizes=(1352, 445),
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        how_to_get="comes with scikit-learn", location="", layout="packaged",
        fingerprints=(
            "0ceb32ba97bab9ea6625100fc346c4ad24d609db5d0f1f1315bb343b6acc9c7c",
            "bcbdbc3157722026420423ed65d182fbe880fbc0b271149910ac3333c2b05898",
        ),
    ),
    DatasetInfo(
        name="mnist", title="MNIST",
        shape=(1, 28, 28), num_classes=10, class_names=_TEN_DIGITS, mean=(0.1307,), std=(0.3081,),
        sizes=(60000, 10000), licence="usually given as CC BY-SA 3.0", how_to_get=_DOWNLOAD,
        location="MNIST/raw", layout="idx", downloadable=True,
        fingerprints=(
            "88d598ddcd27520b70d12b5a689a5027dac7abef2d35e54e8801531a86d3e708",
            "474692f16b0515c106f97f184c2bdbff0f0e9117f79423dcfddf5231e22f47ea",
        ),
    ),
    DatasetInfo(
        name="fashion_mnist", title="FashionMNIST",
        shape=(1, 28, 28), num_classes=10, class_names=tuple(_FASHION_CLASSES.split("|")),
        mean=(0.2861,), std=(0.3530,), sizes=(60000, 10000), licence="MIT", how_to_get=_DOWNLOAD,
        location="FashionMNIST/raw", layout="idx", downloadable=True,
        fingerprints=(
            "53c0414da46fa33e3fdaa2e03a5b912e15d673d2e025b6faee9f42a207c453e6",
            "ca4b2543cf3ca38171bd71fd3b0cc6697db496698f92e96db83b8c030f837ff7",
        ),
    ),
    DatasetInfo(
        name="cifar10", title="CIFAR-10",
        shape=(3, 32, 32), num_classes=10, class_names=tuple(_CIFAR10_CLASSES.split()),
        mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010), sizes=(50000, 10000),
        licence="none stated by its authors; cite Krizhevsky 2009", how_to_get=_DOWNLOAD,
        location="cifar-10-batches-py", layout="cifar", downloadable=True,
        fingerprints=(
            "5a9cffcd50be990d393c07345a07175a23254907389ae1b123c5ef4c0b71d992",
            "5d8e388f492c4dd1dcaf34785d26ea8073056d850c8c3a5ab5ba948848ce92b9",
        ),
    ),
    DatasetInfo(
        name="cifar100", title="CIFAR-100",
        shape=(3, 32, 32), num_classes=100, class_names=tuple(_CIFAR100_CLASSES.split()),
        mean=(0.5071, 0.4866, 0.4409), std=(0.2673, 0.2564, 0.2762), sizes=(50000, 10000),
        licence="none stated by its authors; cite Krizhevsky 2009", how_to_get=_DOWNLOAD,
        location="cifar-100-python", layout="cifar", downloadable=True,
    ),
    DatasetInfo(
        name="svhn", title="SVHN, cropped digits",
        shape=(3, 32, 32), num_classes=10, class_names=_TEN_DIGITS,
        mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970), sizes=(73257, 26032),
        licence="non-commercial use only", how_to_get=_DOWNLOAD,
        location="train_32x32.mat", layout="svhn", downloadable=True,
    ),
    DatasetInfo(
        name="tiny_imagenet", title="Tiny ImageNet, 200 classes; its validation images are the test set",
        shape=(3, 64, 64), num_classes=200, class_names=(), mean=_IMAGENET_MEAN, std=_IMAGENET_STD,
        sizes=(100000, 10000), licence=_IMAGENET_LICENCE, how_to_get=f"downloaded from {TINY_IMAGENET_URL}",
        location="tiny-imagenet-200", layout="tiny", downloadable=True, exact=False,
    ),
    DatasetInfo(
        name="tiny_imagenet10", title="ten classes of Tiny ImageNet",
        shape=(3, 64, 64), num_classes=10, class_names=_classes(TINY_IMAGENET10),
        mean=_IMAGENET_MEAN, std=_IMAGENET_STD, sizes=(5000, 500), licence=_IMAGENET_LICENCE,
        how_to_get="Copy from tiny-imagenet-200 (ddlib data get tiny_imagenet) the images of the classes "
        + ", ".join(SYNSETS[position][0] for position in TINY_IMAGENET10)
        + " to tiny-imagenet-10/train/<wnid>/ and tiny-imagenet-10/val/<wnid>/ under the data folder.",
        location="tiny-imagenet-10", layout="folders", positions=TINY_IMAGENET10, exact=False,
        fingerprints=(
            "e89c17f5a4fcf072dde87dabdb39841a651b2fc374a31967fcca716475456f55",
            "2c1ce91e84e3cde0d585811aa3ef20046ef1ed8955298ad32e54a5c058233e71",
        ),
    ),
    DatasetInfo(
        name="imagenette128", title="a reduced ImageNette at 128x128 (squeezed to a square, 400 + 100 images a class)",
        shape=(3, 128, 128), num_classes=10, class_names=_classes(SUBSETS["imagenette"]),
        mean=_IMAGENET_MEAN, std=_IMAGENET_STD, sizes=(4000, 1000), licence=_IMAGENET_LICENCE,
        how_to_get="A stand-in for imagenette_128 where ImageNet is not at hand; not for download.  Lay 400 training "
        "and 100 test images a class at 128x128 out as imagenette128/train/<wnid>/*.webp and "
        "imagenette128/val/<wnid>/*.webp under the data folder.  Its results are no paper's.",
        location="imagenette128", layout="folders", positions=SUBSETS["imagenette"], exact=False,
        fingerprints=(
            "ba11bd3b1e720d15f01fe7094cd0af7970fa3297f140e46765b0dedd7c3d1358",
            "fd30f429da7b8e0a964ed4a39b301b1c9aefa32931bb51e03b4785acfb7b1adc",
        ),
    ),
    *map(_reduced_imagenette, _REDUCED_IMAGENETTE),
    DatasetInfo(
        name="photographs", title="gray 16x16 patches of the two photographs that scikit-learn brings",
        shape=(1, 16, 16), num_classes=2, class_names=("temple", "flower"), mean=(0.3636,), std=(0.2725,),
        sizes=(4056, 4056), licence="CC BY 2.0 (by danielbuechele and vultilion, as scikit-learn states)",
        how_to_get="comes with scikit-learn", location="", layout="packaged", exact=False,
        fingerprints=(
            "76797d8b9e3a53610413395e5304f58ba38775fce585b65a3d0a94075eb8efca",
            "fc927b8f71efde11cc8dc0cb883cb912654cbf982adcd5a732088bd24b6ec31c",
        ),
    ),
    *(_imagenet(subset, size) for subset in SUBSETS for size in (128, 256)),
)  # fmt: skip

CATALOGUE = {info.name: info for info in _LISTED}
"""Every data set by name."""

ALIASES = {
    f"{other}_{size}": f"{subset}_{size}"
    for other, subset in (("imagesquawk", "imagebirds"), ("imagemeow", "imagecats"))
    for size in (128, 256)
}
"""Other names of the same sets: MTT calls the birds ImageSquawk and the cats ImageMeow."""
