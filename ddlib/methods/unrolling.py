"""The exact gradient of an unrolled SGD inner loop, at the memory of one of its steps.

A student theta_0 takes N steps on mini-batches S_i of a synthetic set, theta_{i+1} = theta_i - a g_i with
g_i = grad_theta l(theta_i; A_i(X[S_i]), Q[S_i]), and the outer loss compares where it ends with a goal theta*
(l is the mean cross-entropy of the mini-batch; the functions of `Student` give its sum, hence the divisions by B):

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

from ddlib.data.augmentation import augment, draw
from ddlib.models import passes
from ddlib.models.passes import PureNetwork


@dataclass(frozen=True, eq=False)
class Student:
    """A network as functions of the vector theta (P,) of its parameters; see `student`.

    The functions take (theta, images (B, C, H, W), targets (B, K) probabilities, direction (P,)) as far as they need
    them, and sum over the images.  l is the cross-entropy against the targets.

    network: the network.
    loss: -> l, ().
    descent: -> grad_theta l, (P,).
    vjp: -> gradients of s = <direction, grad_theta l> in theta, images and targets, and s.
    vjp_data: -> the same in images and targets alone, and s.
    """

    network: PureNetwork
    loss: Callable[..., Tensor]
    descent: Callable[..., Tensor]
    vjp: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    vjp_data: Callable[..., tuple[Tensor, Tensor, Tensor]]


@lru_cache(maxsize=16)
def student(network: PureNetwork, compiled: bool = False) -> Student:
    """The student of a kind of network; the same arguments give the same object, so that it is compiled once.

    Args:
        network: of `passes.pure`; losses and sums keep the dtype of theta whatever its precision.
        compiled: whether its functions go through `torch.compile`, whole.

    Raises:
        ValueError: a network with running statistics.
    """
    flat = network.flat

    def loss(theta, images, targets):
        return -(targets * network.logits(flat.named(theta), {}, images).log_softmax(1)).sum()

    return Student(network, loss, *(_by_func(loss) if compiled else _by_autograd(loss)))


def _by_autograd(loss: Callable[..., Tensor]) -> tuple[Callable, Callable, Callable]:
    """`descent`, `vjp` and `vjp_data`; torch.func would keep graphs that are not needed, for time and memory."""

    def descent(theta, images, targets):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            return torch.autograd.grad(loss(theta, images, targets), theta)[0]

    def vjp(theta, images, targets, direction, *, last=3):
        with torch.enable_grad():
            arguments = [tensor.detach().requires_grad_() for tensor in (theta, images, targets)]
            (slope,) = torch.autograd.grad(loss(*arguments), arguments[0], create_graph=True)
            s = torch.dot(slope, direction)
        return *torch.autograd.grad(s, arguments[-last:]), s.detach()

    return descent, vjp, partial(vjp, last=2)


def _by_func(loss: Callable[..., Tensor]) -> tuple[Callable, Callable, Callable]:
    """The same by torch.func, whose second derivatives can be compiled whole."""

    def along(theta, images, targets, direction):
        s = torch.dot(grad(loss)(theta, images, targets), direction)
        return s, s

    def vjp(*arguments, wanted=(0, 1, 2)):
        gradients, s = grad(along, argnums=wanted, has_aux=True)(*arguments)
        return *gradients, s

    return tuple(map(passes.compiled, (grad(loss), vjp, partial(vjp, wanted=(1, 2)))))


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
        piece: images that pass together; None: by `ddlib.models.passes`.  Only rounding depends on it.
        limit: where L is above it, or no number, the sweep is left out and the gradients are 0; None: never.
        frozen: keep lambda_N throughout; see `tesla`.

    Returns:
        Loss and gradients, in the dtype and on the device of `start`.
    """
    piece = piece or passes.size(max(len(batch.rows) for batch in batches), student.network.elements, start.device)
    path = [start]  # theta_0, ..., theta_N
    with torch.no_grad():
        for batch in batches:
            augmented, batch_targets = batch.transform(images[batch.rows]), targets[batch.rows]
            parts = zip(augmented.split(piece), batch_targets.split(piece), strict=True)
            slope = sum(student.descent(path[-1], x, q) for x, q in parts)
            path.append(path[-1] - lr / len(batch.rows) * slope)
    end, scale = path.pop(), (start - goal).square().sum()
    loss, direction = (end - goal).square().sum() / scale, 2 * (end - goal) / scale  # L, lambda_N
    gradient = Gradient(loss, torch.zeros_like(images), torch.zeros_like(targets), torch.zeros_like(lr), end)
    if limit is not None and not loss <= limit:
        return gradient
    vjp = student.vjp_data if frozen else student.vjp
    for batch in reversed(batches):
        theta, weight, leaf = path.pop(), 1 / len(batch.rows), images[batch.rows].requires_grad_()
        augmented = batch.transform(leaf)
        hessian_product, v_images, v_targets = 0, [], []  # sum_i H_i lambda, J_i^T lambda
        for x, q in zip(augmented.detach().split(piece), targets[batch.rows].split(piece), strict=True):
            *v_theta, v_x, v_q, s = vjp(theta, x, q, direction)
            hessian_product = hessian_product + v_theta[0] if v_theta else hessian_product
            v_images.append(v_x)
            v_targets.append(v_q)
            gradient.lr.sub_(weight * s)
        (v_leaf,) = torch.autograd.grad(augmented, leaf, torch.cat(v_images))
        gradient.images.index_add_(0, batch.rows, -lr * weight * v_leaf)
        gradient.targets.index_add_(0, batch.rows, -lr * weight * torch.cat(v_targets))
        direction = direction if frozen else direction - lr * weight * hessian_product  # lambda_i from lambda_{i+1}
    return gradient


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
