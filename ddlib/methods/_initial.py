"""Where trajectory matching starts: real images that the experts get right, and the labels that experts give them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddlib import seeding
from ddlib.data.datasets import ImageSet
from ddlib.methods._selection import check_ipc
from ddlib.models.passes import Flat
from ddlib.pretraining.experts import Trajectories

WALK = 256
"""Images that an expert is asked about at a time."""


@torch.no_grad()
def correct_rows(train: ImageSet, ipc: int, *, flat: Flat, experts: Trajectories, seed: int) -> Tensor:
    """Rows of real images that trained experts get right, class by class (DATM, Guo et al. 2024).

    For each class its images are walked through in a random order; the first `ipc` whose arg max under expert 0, after
    its last epoch and without augmentation, is their class are kept.  Where expert 0 leaves too few, expert 1 goes
    over the rest from the start, and so on.

    Returns:
        (K*ipc,) int64, no row twice.

    Raises:
        ValueError: the experts together get fewer than `ipc` images of a class right.

    Deviation from the published code: there a class goes on with whichever expert the class before it ended with;
    here each begins with expert 0.
    """
    check_ipc(ipc, train)
    return torch.cat([_correct(train, c, ipc, flat, experts, seed) for c in range(train.num_classes)])


def _correct(train: ImageSet, c: int, ipc: int, flat: Flat, experts: Trajectories, seed: int) -> Tensor:
    own = train.class_indices[c]
    order = own[torch.randperm(len(own), generator=seeding.generator(seed, "init", c)).to(own.device)]
    kept, left = [], order
    for expert in range(experts.count):
        theta, wrong = experts.last(expert).to(train.device), []
        for rows in left.split(WALK):
            right = flat(theta, train.take(rows)).argmax(1) == c
            kept.append(rows[right])
            wrong.append(rows[~right])
            if sum(map(len, kept)) >= ipc:
                return torch.cat(kept)[:ipc]
        left = torch.cat(wrong)
    raise ValueError(
        f"ipc={ipc} with init='correct': the {experts.count} experts get {sum(map(len, kept))} of {len(own)} images "
        f"of class {train.class_names[c]!r} right; take fewer, train the experts for longer, or take init='real'"
    )


@torch.no_grad()
def ensemble_logits(images: Tensor, classes: Tensor, *, flat: Flat, experts: Trajectories) -> Tensor:
    """Initial soft labels of DATM: the mean logits, over the experts that are right about an image, after their end.

        Y_i = sum_m 1[argmax f_m(x_i) = c_i] f_m(x_i) / sum_m 1[argmax f_m(x_i) = c_i]

    An image that no expert is right about, which `correct_rows` never gives, gets the mean over all of them.

    Args:
        images: (n, C, H, W), not augmented.
        classes: (n,) int64.

    Returns:
        (n, K) float32.
    """
    total = torch.zeros(len(images), flat.network.classifier.out_features, device=images.device)
    votes, everyone = torch.zeros(len(images), 1, device=images.device), torch.zeros_like(total)
    for logits in expert_logits(images, flat=flat, experts=experts):
        right = (logits.argmax(1) == classes)[:, None]
        total += logits * right
        votes += right
        everyone += logits
    return torch.where(votes > 0, total / votes.clamp_min(1), everyone / experts.count)


@torch.no_grad()
def expert_logits(images: Tensor, *, flat: Flat, experts: Trajectories) -> Iterator[Tensor]:
    """For each expert, after its last epoch, its logits (n, K) of the images (n, C, H, W)."""
    for expert in range(experts.count):
        theta = experts.last(expert).to(images.device)
        yield torch.cat([flat(theta, part) for part in images.split(WALK)])
