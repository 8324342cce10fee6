"""The exact gradient of an unrolled SGD inner loop, at the memory of one of its steps.

A student theta_0 takes N steps on mini-batches S_i of a synthetic set, theta_{i+1} = theta_i - a g_i with
g_i = grad_theta l(theta_i; A_i(X[S_i]), Q[S_i]), and the outer loss compares where it ends with a goal theta*:

    L = ||theta_N - theta*||^2 / ||theta_0 - theta*||^2                       (MTT, Cazenavette et al. 2022, Eq. 2)

Three ways to its gradient in images X, targets Q and step size a:

- `adjoint`: keeps the vectors theta_0..theta_N and sweeps backwards with the graph of one step at a time,
      lambda_N = 2 (theta_N - theta*) / ||theta_0 - theta*||^2,   lambda_i = lambda_{i+1} - a H_i lambda_{i+1},
      dL/dx_i = -a J_i^T lambda_{i+1},   dL/da = -sum_i <lambda_{i+1}, g_i>,
  with H_i the Hessian of l in theta and J_i = dg_i/dx_i.  Exact: N vectors of memory, not N graphs.
- `unrolled`: automatic differentiation through all N steps, as MTT, FTD and DATM were published; the same gradient.
- `tesla`: the published approximation (TESLA, Cui et al. 2023) that takes lambda_N for every lambda_{i+1}, that is,
  drops all products I - a H_j.  Exact for N = 1 alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.func import grad

from ddlib import models
from ddlib.data.augmentation import augment, draw
from ddlib.models import passes
from ddlib.models.passes import Flat


@dataclass(frozen=True, eq=False)
class Student:
    """A kind of network as functions of a vector of parameters; see `student`.

    Every function takes (theta (P,), images (B, C, H, W), targets (B, K) probabilities, direction (P,)) as far as it
    needs them, and sums over the images.  l is the cross-entropy against the targets.

    flat: the network.
    loss: -> l, ().
    descent: -> grad_theta l, (P,).
    pull: -> gradients of s = <direction, grad_theta l> in theta, images and targets, and s.
    pull_fixed: -> the same in images and targets alone, and s.
    elements: of the largest map of one image.
    """

    flat: Flat
    loss: Callable[..., Tensor]
    descent: Callable[..., Tensor]
    pull: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    pull_fixed: Callable[..., tuple[Tensor, Tensor, Tensor]]
    elements: int


@dataclass(frozen=True, eq=False)
class MiniBatch:
    """What one inner step sees.

    rows: (B,) int64, different rows of the synthetic set.
    transform: the augmentation with its parameters drawn, differentiable: (B, C, H, W) -> (B, C, H, W).
    """

    rows: Tensor
    transform: Callable[[Tensor], Tensor] = lambda images: images  # noqa: E731


def draw_batches(
    images: Tensor,
    *,
    steps: int,
    batch: int | None,
    strategy: str,
    order: torch.Generator,
    augmentation: torch.Generator,
) -> list[MiniBatch]:
    """The mini-batches of an inner loop: permutations cut into chunks, each with its own draw of DSA.

    A new permutation is drawn when the chunks of the one before are used up, so N B need be no multiple of n.

    Args:
        images: X, (n, C, H, W).
        steps: N.
        batch: B; a chunk is shorter where it does not divide n.  None: n.
        strategy: DSA families, as `augmentation.draw` takes them.
        order, augmentation: generators of the permutations, and of what DSA draws.
    """
    chunks: list[Tensor] = []
    batches = []
    for _ in range(steps):
        chunks = chunks or list(torch.randperm(len(images), generator=order).split(batch or len(images)))
        rows = chunks.pop()
        draws = draw(1, len(rows), size=tuple(images.shape[2:]), strategy=strategy, generator=augmentation)
        batches.append(MiniBatch(rows.to(images.device), partial(augment, draws=draws)))
    return batches


@dataclass(frozen=True, eq=False)
class Gradient:
    """The outer loss and its gradient.

    loss: L, ().
    images, targets, lr: dL/dX (n, C, H, W), dL/dQ (n, K), dL/da ().
    end: theta_N, (P,).
    """

    loss: Tensor
    images: Tensor
    targets: Tensor
    lr: Tensor
    end: Tensor


def student(
    network: str,
    *,
    shape: tuple[int, int, int],
    num_classes: int,
    precision: str = "float32",
    compiled: bool = False,
    **options: object,
) -> Student:
    """The student of a kind of network; the same arguments give the same object, so that it is compiled once.

    Args:
        network, shape, num_classes, options: as `ddlib.models.build`.
        precision: of convolutions and products, "float32" or "bfloat16" (autocast); parameters, losses, directions
            and sums over steps keep the dtype of theta.
        compiled: whether its functions go through `torch.compile`, whole.

    Raises:
        ValueError: an unknown network or option, or a network with running statistics.
    """
    return _student(network, tuple(shape), num_classes, precision, compiled, tuple(sorted(options.items())))


@lru_cache(maxsize=16)
def _student(network, shape, num_classes, precision, compiled, options):
    with torch.device("meta"):
        model = models.build(network, shape=shape, num_classes=num_classes, **dict(options))
        features = model.features(torch.empty(1, *shape))
    flat = Flat(model)

    def loss(theta, images, targets):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = flat(theta, images)
        return -(targets * logits.to(theta.dtype).log_softmax(1)).sum()

    ways = _compiled(loss) if compiled else _eager(loss)
    elements = max(tensor.numel() // len(tensor) for tensor in (torch.empty(1, *shape, device="meta"), *features.maps))
    return Student(flat, loss, *ways, elements)


def _eager(loss: Callable[..., Tensor]) -> tuple[Callable, Callable, Callable]:
    """`descent`, `pull` and `pull_fixed` by automatic differentiation.

    torch.func keeps graphs that nobody asks for, which costs time and memory where nothing is compiled.
    """

    def descent(theta, images, targets):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            return torch.autograd.grad(loss(theta, images, targets), theta)[0]

    def pull(theta, images, targets, direction, *, wanted=3):
        with torch.enable_grad():
            given = [tensor.detach().requires_grad_() for tensor in (theta, images, targets)]
            (slope,) = torch.autograd.grad(loss(*given), given[0], create_graph=True)
            s = torch.dot(slope, direction)
        return *torch.autograd.grad(s, given[-wanted:]), s.detach()

    return descent, pull, partial(pull, wanted=2)


def _compiled(loss: Callable[..., Tensor]) -> tuple[Callable, Callable, Callable]:
    """The same by torch.func, whose second derivatives can be compiled whole."""

    def along(theta, images, targets, direction):
        s = torch.dot(grad(loss)(theta, images, targets), direction)
        return s, s

    def pull(theta, images, targets, direction):
        found, s = grad(along, argnums=(0, 1, 2), has_aux=True)(theta, images, targets, direction)
        return *found, s

    def pull_fixed(theta, images, targets, direction):
        found, s = grad(along, argnums=(1, 2), has_aux=True)(theta, images, targets, direction)
        return *found, s

    return tuple(map(passes.compiled, (grad(loss), pull, pull_fixed)))


def adjoint(
    student: Student,
    start: Tensor,
    goal: Tensor,
    *,
    images: Tensor,
    targets: Tensor,
    lr: Tensor,
    batches: Sequence[MiniBatch],
    piece: int | None = None,
    limit: float | None = None,
    frozen: bool = False,
) -> Gradient:
    """The exact gradient of L by the adjoint sweep of the module's head.

    Args:
        start, goal: theta_0 and theta*, (P,), different.
        images: X, (n, C, H, W), in the space that the student sees.
        targets: Q, (n, K), probabilities.
        lr: a, ().
        batches: S_0..S_{N-1} with their augmentations, N >= 1.
        piece: images that pass together; None: by `ddlib.models.passes`.  Sums alone depend on it.
        limit: where L is above it, or no number, the sweep is left out and the gradients are 0; None: never.
        frozen: keep lambda_N throughout; see `tesla`.

    Returns:
        Loss and gradients, in the dtype and on the device of `start`.
    """
    piece = piece or passes.size(max(len(batch.rows) for batch in batches), student.elements, start.device)
    passed = [start]
    with torch.no_grad():
        for batch in batches:
            theta = passed[-1]
            shown, aims = batch.transform(images[batch.rows]), targets[batch.rows]
            parts = zip(shown.split(piece), aims.split(piece), strict=True)
            slope = sum(student.descent(theta, x, q) for x, q in parts)
            passed.append(theta - lr / len(batch.rows) * slope)
    end, scale = passed.pop(), (start - goal).square().sum()
    loss, direction = (end - goal).square().sum() / scale, 2 * (end - goal) / scale
    found = Gradient(loss, torch.zeros_like(images), torch.zeros_like(targets), torch.zeros_like(lr), end)
    if limit is not None and not loss <= limit:
        return found
    for batch in reversed(batches):
        given = batch, images, targets, lr
        direction = _back(student, passed.pop(), found, direction=direction, given=given, piece=piece, frozen=frozen)
    return found


def _back(student: Student, theta: Tensor, found: Gradient, *, direction, given, piece, frozen) -> Tensor:
    """Add what one step contributes to the gradient `found`; returns lambda_i from lambda_{i+1}."""
    batch, images, targets, lr = given
    rows, weight = batch.rows, 1 / len(batch.rows)
    leaf = images[rows].requires_grad_()
    shown, aims = batch.transform(leaf), targets[rows]
    pulled, bent = [], 0
    for x, q in zip(shown.detach().split(piece), aims.split(piece), strict=True):
        *theta_part, v_images, v_targets, s = (student.pull_fixed if frozen else student.pull)(theta, x, q, direction)
        pulled.append((v_images, v_targets))
        bent = bent + theta_part[0] if theta_part else bent
        found.lr.sub_(weight * s)
    v_images, v_targets = (torch.cat(parts) for parts in zip(*pulled, strict=True))
    (v_leaf,) = torch.autograd.grad(shown, leaf, v_images)
    found.images.index_add_(0, rows, -lr * weight * v_leaf)
    found.targets.index_add_(0, rows, -lr * weight * v_targets)
    return direction if frozen else direction - lr * weight * bent


tesla = partial(adjoint, frozen=True)
"""TESLA's approximation (Cui et al. 2023): arguments and result of `adjoint`, with lambda_N in place of every lambda.

The loss is exact; the gradient lacks the factors prod_{j>i} (I - a H_j), and equals the exact one for N = 1 alone.
Deviation from the published code: it is computed in the sweep of `adjoint`, with one graph at a time.
"""


def unrolled(
    student: Student,
    start: Tensor,
    goal: Tensor,
    *,
    images: Tensor,
    targets: Tensor,
    lr: Tensor,
    batches: Sequence[MiniBatch],
    piece: int | None = None,
    limit: float | None = None,
) -> Gradient:
    """The same gradient by automatic differentiation through all N steps: arguments and result of `adjoint`.

    Keeps the graphs of all steps, about 3 MB an image and step for ConvNet-3 at 32x32; `piece` and `limit` are
    not used: the graphs are there before L is known.
    """
    X, Q, a = (tensor.detach().requires_grad_() for tensor in (images, targets, lr))
    theta = start.detach().requires_grad_()
    for batch in batches:
        loss = student.loss(theta, batch.transform(X[batch.rows]), Q[batch.rows]) / len(batch.rows)
        (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - a * slope
    loss = (theta - goal).square().sum() / (start - goal).square().sum()
    return Gradient(loss.detach(), *torch.autograd.grad(loss, (X, Q, a)), theta.detach())


GRADIENTS: dict[str, Callable[..., Gradient]] = {"adjoint": adjoint, "unrolled": unrolled, "tesla": tesla}
"""By name, as methods choose them."""
