"""Train on exported sets and test, by the recipe of each card, with PyTorch alone: nothing of ddlib is imported.

    python train_alone.py TEST.npz FOLDER [FOLDER ...]

TEST.npz holds the real test images, `pixels` (N, C, H, W) of real numbers in [0, 1], and their `labels` (N,):

    numpy.savez("TEST.npz", pixels=images / numpy.float32(255), labels=labels)    # of uint8 images

A folder is one that `ddlib export` wrote as npz, pt, png or hf, of a recipe with the ConvNet, instance norm and the
step schedule.  Prints a line for each folder: its name, then the accuracies in percent of as many networks as its card
has.
"""

import json
import math
import sys
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn import functional

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""In the order in which those joined by + are applied."""


def main(arguments):
    """Train and test on every folder."""
    if len(arguments) < 2:
        raise SystemExit(__doc__)
    real = numpy.load(arguments[0])
    pixels, classes = torch.from_numpy(real["pixels"]).float(), torch.from_numpy(real["labels"]).long()
    if pixels.max() > 1:
        raise SystemExit(f"{arguments[0]}: pixels up to {pixels.max():g}; allowed: real numbers from 0 to 1")
    for number, folder in enumerate(map(Path, arguments[1:])):
        torch.manual_seed(number)
        card = json.loads((folder / "card.json").read_text())
        check(card, folder)
        images, labels, space = read(folder)
        test = encoded(pixels, space), classes
        networks = range(card["recipe"]["protocol"]["num_networks"])
        print(folder.name, *(accuracy(images, labels, test, card) for _ in networks), flush=True)


def check(card, folder):
    """Refuse a set that states no accuracy, or one of other images or of a recipe that is not followed here."""
    if not card["recipe"] or card["stated"]["of"] != "this set":
        raise SystemExit(f"{folder}: the card states no accuracy of this set")
    protocol = card["recipe"]["protocol"]
    options = {"norm": "instance"} | protocol["options"]
    plain = not any(protocol.get(name) for name in ("labels", "ema", "compat", "epoch_images"))
    known = (protocol["network"], protocol["schedule"], options["norm"]) == ("convnet", "step", "instance")
    if not (plain and known and set(options) <= {"width", "depth", "norm"}):
        raise SystemExit(f"{folder}: the recipe is {protocol}; allowed: a plain ConvNet, the schedule step, own labels")


def read(folder):
    """Images in their value space, labels, and what brings pixels into that space."""
    if (folder / "set.npz").exists():
        arrays = numpy.load(folder / "set.npz")
        return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]), arrays
    if (folder / "set.pt").exists():
        tensors = torch.load(folder / "set.pt", weights_only=True)
        return tensors["images"], tensors["labels"], tensors
    if not (folder / "space.npz").exists():
        raise SystemExit(f"{folder} is no export as npz, pt, png or hf")
    space = numpy.load(folder / "space.npz")
    if (folder / "data").exists():
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(folder / "data")
        labels = table["logits" if "logits" in table.column_names else "label"].to_pylist()
        return torch.tensor(table["tensor"].to_pylist()), torch.tensor(labels), space
    import torchvision

    pictures = torchvision.datasets.ImageFolder(folder / "images", torchvision.transforms.ToTensor(), allow_empty=True)
    pixels, labels = torch.stack([image for image, _ in pictures]), torch.tensor(pictures.targets)
    if (folder / "labels.json").exists():
        logits = json.loads((folder / "labels.json").read_text())["logits"]
        labels = torch.tensor([logits[Path(path).relative_to(folder).as_posix()] for path, _ in pictures.samples])
    return encoded(pixels[:, : len(space["mean"])], space), labels, space


def encoded(pixels, space):
    """Pixels in [0, 1] as the networks see them."""
    mean, std = (torch.as_tensor(space[name]).float().view(-1, 1, 1) for name in ("mean", "std"))
    x = (pixels - mean) / std
    if "zca_mean" not in space:
        return x
    mean, whitening = (torch.as_tensor(space[name]) for name in ("zca_mean", "zca_whitening"))
    return ((x.flatten(1) - mean) @ whitening).view(x.shape)


def accuracy(images, labels, test, card):
    """Train a fresh network by the recipe of a card; its accuracy in percent on test images in the same space."""
    protocol, follows = card["recipe"]["protocol"], card["recipe"]["follows"]
    net = convnet(images.shape[1:], len(card["class_names"]), **protocol["options"])
    targets = labels.softmax(1) if labels.ndim == 2 else labels

    def fresh(rate):
        return torch.optim.SGD(
            net.parameters(), rate, momentum=protocol["momentum"], weight_decay=protocol["weight_decay"]
        )

    optimiser = fresh(follows["learning_rate"])
    for epoch in range(follows["epochs_gone_through"]):
        for rows in torch.randperm(len(images)).split(protocol["batch_size"]):
            optimiser.zero_grad()
            functional.cross_entropy(net(augmented(images[rows], follows["strategy"])), targets[rows]).backward()
            optimiser.step()
        if epoch == follows["divided_by_ten_after_epoch"]:
            optimiser = fresh(follows["learning_rate"] / 10)
    with torch.no_grad():
        right = [net(x).argmax(1) == y for x, y in zip(test[0].split(1000), test[1].split(1000), strict=True)]
    return 100 * torch.cat(right).float().mean().item()


def convnet(shape, classes, width=128, depth=None, norm="instance"):
    """Blocks of convolution, norm, ReLU and pooling, then a linear layer; 1x28x28 images are padded by 2 more."""
    extra = 2 if tuple(shape) == (1, 28, 28) else 0
    sides = [side + 2 * extra for side in shape[1:]]
    depth = depth or max(1, int(math.log2(min(sides))) - 2)
    blocks, last = [], shape[0]
    for index in range(depth):
        padding = 1 + (extra if index == 0 else 0)
        blocks += [nn.Conv2d(last, width, 3, padding=padding), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
        last = width
    features = width * (sides[0] // 2**depth) * (sides[1] // 2**depth)
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(features, classes))


# --- augmentation -----------------------------------------------------------------------------------------------------


def augmented(x, strategy):
    """A mini-batch (B, C, H, W) by one of the families joined by _, or by all of those joined by +."""
    choices = strategy.split("_")
    drawn = choices[int(torch.randint(len(choices), ()))].split("+")
    for family in [name for name in FAMILIES if name in drawn]:
        x = by(family, x)
    return x


def by(family, x):
    """A mini-batch by one family; every image has numbers of its own."""
    n, side = len(x), x.shape[-1]
    if family == "color":
        b, s, c = (uniform(*ends, n).view(-1, 1, 1, 1) for ends in ((-0.5, 0.5), (0, 2), (0.5, 1.5)))
        x = x + b
        g = x.mean(1, keepdim=True)
        x = (x - g) * s + g
        g = x.mean((1, 2, 3), keepdim=True)
        return (x - g) * c + g
    if family == "crop":
        r = int(0.125 * side + 0.5)
        padded = functional.pad(x, (r, r, r, r))
        starts = zip(whole(0, 2 * r, n).tolist(), whole(0, 2 * r, n).tolist(), strict=True)
        return torch.stack([image[:, i : i + side, j : j + side] for image, (i, j) in zip(padded, starts, strict=True)])
    if family == "cutout":
        h, here = int(0.5 * side + 0.5), torch.arange(side)
        corners = [whole(0, side - h % 2, n).view(-1, 1) - h // 2 for _ in range(2)]
        down, across = ((corner <= here) & (here < corner + h) for corner in corners)
        return x * ~(down[:, :, None] & across[:, None, :])[:, None]
    if family == "flip":
        return torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
    if family == "scale":
        return warped(x, torch.diag_embed(uniform(1 / 1.2, 1.2, 2 * n).view(n, 2)))
    a = uniform(-15, 15, n) * math.pi / 180
    return warped(x, torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()], 1).view(n, 2, 2))


def uniform(low, high, count):
    """Real numbers between two ends."""
    return low + (high - low) * torch.rand(count)


def whole(low, high, count):
    """Whole numbers from one end to the other."""
    return torch.randint(low, high + 1, (count,))


def warped(x, matrix):
    """Images read at places that matrices (B, 2, 2) lead to, zeros outside."""
    grid = functional.affine_grid(functional.pad(matrix, (0, 1)), x.shape, align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


if __name__ == "__main__":
    main(sys.argv[1:])
