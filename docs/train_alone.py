"""Train on exported sets and test, by the recipe of each card, with PyTorch alone: nothing of ddlib is imported.

    python train_alone.py TEST.npz FOLDER [FOLDER ...]

TEST.npz holds the real test images, `pixels` (N, C, H, W) in [0, 1], and their `labels`; a folder is one that
`ddlib export` wrote as npz, pt, png or hf, of a recipe whose network is the ConvNet with instance norm.  Prints a line
for each folder: its name, then the accuracy in percent of as many networks as its card has.
"""

import json
import math
import sys
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn import functional

ORDER = ("color", "crop", "cutout", "flip", "scale", "rotate")


def read(folder):
    """Images in their value space, labels, and what brings pixels into that space, of an export."""
    if (folder / "set.npz").exists():
        space = found = numpy.load(folder / "set.npz")
        return torch.from_numpy(found["images"]), torch.from_numpy(found["labels"]), space
    if (folder / "set.pt").exists():
        space = found = torch.load(folder / "set.pt", weights_only=True)
        return found["images"], found["labels"], space
    space = numpy.load(folder / "space.npz")
    if (folder / "data").exists():
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(folder / "data")
        labels = table["logits" if "logits" in table.column_names else "label"].to_pylist()
        return torch.tensor(table["tensor"].to_pylist()), torch.tensor(labels), space
    import torchvision

    found = torchvision.datasets.ImageFolder(folder / "images", torchvision.transforms.ToTensor(), allow_empty=True)
    pixels, labels = torch.stack([image for image, _ in found]), torch.tensor(found.targets)
    if (folder / "labels.json").exists():
        logits = json.loads((folder / "labels.json").read_text())["logits"]
        labels = torch.tensor([logits[Path(path).relative_to(folder).as_posix()] for path, _ in found.samples])
    return encoded(pixels[:, : len(space["mean"])], space), labels, space


def encoded(pixels, space):
    """Pixels in [0, 1] as the networks see them."""
    mean, std = (torch.as_tensor(space[name]).float().view(-1, 1, 1) for name in ("mean", "std"))
    x = (pixels - mean) / std
    if "zca_mean" not in space:
        return x
    mean, whitening = (torch.as_tensor(space[name]) for name in ("zca_mean", "zca_whitening"))
    return ((x.flatten(1) - mean) @ whitening).view(x.shape)


def uniform(low, high, count):
    return low + (high - low) * torch.rand(count)


def whole(low, high, count):
    return torch.randint(low, high + 1, (count,))


def warped(x, matrix):
    grid = functional.affine_grid(functional.pad(matrix, (0, 1)), x.shape, align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def augmented(x, strategy):
    """A mini-batch (B, C, H, W) by one of the families joined by _, or by all of those joined by +."""
    families = strategy.split("_")
    drawn = families[int(torch.randint(len(families), ()))].split("+")
    for family in [name for name in ORDER if name in drawn]:
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
        return torch.stack([one[:, i : i + side, j : j + side] for one, (i, j) in zip(padded, starts, strict=True)])
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


def convnet(width, depth, shape, classes):
    layers, last = [], shape[0]
    for _ in range(depth):
        layers += [nn.Conv2d(last, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
        last = width
    features = width * (shape[1] // 2**depth) * (shape[2] // 2**depth)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, classes))


def accuracy(images, labels, test, recipe):
    """Train a fresh network by a card's recipe; its accuracy in percent on test images in the same value space."""
    told, follows = recipe["protocol"], recipe["follows"]
    options, classes = told["options"], int(test[1].max()) + 1
    asked = told["schedule"], told["network"], options.get("norm", "instance"), told["labels"]
    if asked != ("step", "convnet", "instance", None):
        raise SystemExit(
            f"the recipe has {asked}; allowed: step, convnet, instance, and no labels but those of the set"
        )
    net = convnet(options.get("width", 128), options.get("depth", 3), images.shape[1:], classes)
    targets = labels.softmax(1) if labels.ndim == 2 else labels

    def fresh(rate):
        return torch.optim.SGD(net.parameters(), rate, momentum=told["momentum"], weight_decay=told["weight_decay"])

    optimiser = fresh(follows["learning_rate"])
    for epoch in range(follows["epochs_gone_through"]):
        for rows in torch.randperm(len(images)).split(told["batch_size"]):
            optimiser.zero_grad()
            functional.cross_entropy(net(augmented(images[rows], follows["strategy"])), targets[rows]).backward()
            optimiser.step()
        if epoch == follows["divided_by_ten_after_epoch"]:
            optimiser = fresh(follows["learning_rate"] / 10)
    with torch.no_grad():
        right = [net(x).argmax(1) == y for x, y in zip(test[0].split(1000), test[1].split(1000), strict=True)]
    return 100 * torch.cat(right).float().mean().item()


def main(place, *folders):
    real = numpy.load(place)
    pixels, classes = torch.from_numpy(real["pixels"]), torch.from_numpy(real["labels"])
    for number, folder in enumerate(map(Path, folders)):
        torch.manual_seed(number)
        recipe = json.loads((folder / "card.json").read_text())["recipe"]
        images, labels, space = read(folder)
        test = encoded(pixels, space), classes
        networks = range(recipe["protocol"]["num_networks"])
        print(folder.name, *(accuracy(images, labels, test, recipe) for _ in networks), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
