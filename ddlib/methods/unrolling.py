"""The exact gradient of an unrolled SGD inner loop, at the memory of one of its steps.

A student theta_0 takes N steps on mini-batches S_i of a synthetic set, theta_{i+1} = theta_i - a g_i with
g_i = grad_theta l(theta_i; A_i(X[S_i]), Q[S_i]), and the outer loss compares where it ends with a goal theta*
(l is the mean cross-entropy of the mini-batch; the functions of `Student` give its sum, hence the divisions by B):

    L = ||theta_N - theta*||^2 / ||theta_0 - theta*||^2                       (MTT, Cazenavette et al. 2022, Eq. 2)

Three ways to its gradient in images X, targets Q and step size a:

- `adjoint`: keeps the vectors theta_0..theta_N, of the last steps the graphs that fit, and sweeps backwards with the
  graph of one step at a time,
      lambda_N = 2 (theta_N - theta*) / ||theta_0 - theta*||^2,   lambda_i = lambda_{i+1} - a H_i lambda_{i+1},
      dL/dx_i = -a J_i^T lambda_{i+1},   dL/da = -sum_i <lambda_{i+1}, g_i>,
  with H_i the Hessian of l in theta and J_i = dg_i/dx_i.  Exact; a graph that was not kept is made again.
- `unrolled`: automatic differentiation through all N steps, as MTT, FTD and DATM were published; the same gradient.
- `tesla`: the published approximation (TESLA, Cui et al. 2023) that takes lambda_N for every lambda_{i+1}, that is,
  drops all products I - a H_j.  Exact for N = 1 alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import psutil
import torch
from torch import Tensor
from torch.func import grad

from ddlib.data.augmentation import augment, draw
from ddlib.models import passes, second_order
from ddlib.models.passes import PureNetwork

MEMORY_GB: float | None = None
"""1e9 bytes in which `adjoint` and `tesla` may keep graphs where they are not told; None: half of what is free."""


@dataclass(frozen=True, eq=False)
class Student:
    """A network as functions of the vector theta (P,) of its parameters; see `student`.

    The functions take (theta, images (B, C, H, W), targets (B, K) probabilities, direction (P,)) as far as they need
    them, and sum over the images.  l is the cross-entropy against the targets.

    network: the network.
    loss: -> l, (), by the network's own layers; the others take those of `second_order`, where there are such.
    descent: -> grad_theta l, (P,).
    vjp: -> gradients of <direction, grad_theta l> in theta, images and targets.
    vjp_data: -> the same in images and targets alone.
    record: -> `descent`, and what `vjp` (or, with `last=2`, `vjp_data`) gives, as a function of the direction that
        takes their graph on; None where nothing is recorded.
    same_bits: whether `descent` and `record` give the same bits.
    """

    network: PureNetwork
    loss: Callable[..., Tensor]
    descent: Callable[..., Tensor]
    vjp: Callable[..., tuple[Tensor, Tensor, Tensor]]
    vjp_data: Callable[..., tuple[Tensor, Tensor]]
    record: Callable[..., tuple[Tensor, Callable[..., tuple[Tensor, ...]]]] | None = None
    same_bits: bool = False


@lru_cache(maxsize=16)
def student(network: PureNetwork, compiled: bool = False) -> Student:
    """The student of a kind of network; the same arguments give the same object, so that it is compiled once.

    Args:
        network: of `passes.pure`; losses and sums keep the dtype of theta whatever its precision.
        compiled: whether its functions go through `torch.compile`, whole.

    Raises:
        ValueError: a network with batch statistics.
    """
    flat = network.flat

    def loss_of(network):
        def loss(theta, images, targets):
            return -(targets * network.logits(flat.named(theta), {}, images).log_softmax(1)).sum()

        return loss

    loss = loss_of(network)
    if compiled:
        return Student(network, loss, *_by_func(loss))
    forms = [second_order.twice(network.training, values=values) for values in (True, False)]
    if network.precision != "float32" or None in forms:
        return Student(network, loss, *_by_autograd(loss))
    return Student(
        network, loss, *_by_autograd(*(loss_of(replace(network, training=f)) for f in forms)), same_bits=True
    )


def _by_autograd(loss: Callable[..., Tensor], second: Callable[..., Tensor] | None = None) -> tuple[Callable, ...]:
    """`descent`, `vjp`, `vjp_data` and `record`; torch.func would keep graphs that are not needed.

    second: `loss` where its gradient's graph matters and not its gradient.
    """

    def descent(theta, images, targets):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            return torch.autograd.grad(loss(theta, images, targets), theta)[0]

    def record(theta, images, targets, loss=loss):
        with torch.enable_grad():
            arguments = [tensor.detach().requires_grad_() for tensor in (theta, images, targets)]
            (slope,) = torch.autograd.grad(loss(*arguments), arguments[0], create_graph=True)
        return slope.detach(), lambda direction, *, last=3: torch.autograd.grad(slope, arguments[-last:], direction)

    def vjp(theta, images, targets, direction, *, last=3):
        return record(theta, images, targets, second or loss)[1](direction, last=last)

    return descent, vjp, partial(vjp, last=2), record


def _by_func(loss: Callable[..., Tensor]) -> tuple[Callable, Callable, Callable]:
    """The same by torch.func, whose second derivatives can be compiled whole."""

    def along(theta, images, targets, direction):
        return torch.dot(grad(loss)(theta, images, targets), direction)

    return tuple(map(passes.compiled, (grad(loss), grad(along, argnums=(0, 1, 2)), grad(along, argnums=(1, 2)))))


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
    memory_gb: float | None = None,
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
        memory_gb: 1e9 bytes that may be taken to keep the graphs of the last steps, each of which then saves a forward
            and a backward pass; None: `MEMORY_GB`, where the bits do not depend on it, else 0.
        frozen: keep lambda_N throughout; see `tesla`.

    Returns:
        Loss and gradients, in the dtype and on the device of `start`.
    """
    piece = piece or passes.size(max(len(batch.rows) for batch in batches), student.network.elements, start.device)
    graphs_kept = sum(_kept(student, images, targets, batches, start, memory_gb))
    path, slopes, graphs = [start], [], []  # theta_0, ..., theta_N; B g_i; of the last steps, what their parts recorded
    with torch.no_grad():
        for number, batch in enumerate(batches, start=graphs_kept - len(batches)):
            augmented, batch_targets = batch.transform(images[batch.rows]), targets[batch.rows]
            parts = zip(augmented.split(piece), batch_targets.split(piece), strict=True)
            if number < 0:
                slope = sum(student.descent(path[-1], x, q) for x, q in parts)
            else:
                parts, recorded = zip(*(student.record(path[-1], x, q) for x, q in parts), strict=True)
                slope = sum(parts)
                graphs.append(recorded)
            slopes.append(slope)
            path.append(path[-1] - lr / len(batch.rows) * slope)
    end, scale = path.pop(), (start - goal).square().sum()
    loss, direction = (end - goal).square().sum() / scale, 2 * (end - goal) / scale  # L, lambda_N
    gradient = Gradient(loss, torch.zeros_like(images), torch.zeros_like(targets), torch.zeros_like(lr), end)
    if limit is not None and not loss <= limit:
        return gradient
    vjp, last = (student.vjp_data, 2) if frozen else (student.vjp, 3)
    for batch in reversed(batches):
        theta, weight, leaf = path.pop(), 1 / len(batch.rows), images[batch.rows].requires_grad_()
        augmented = batch.transform(leaf)
        if graphs:
            alongs = [partial(along, last=last) for along in graphs.pop()]
        else:
            parts = zip(augmented.detach().split(piece), targets[batch.rows].split(piece), strict=True)
            alongs = [partial(vjp, theta, x, q) for x, q in parts]
        hessian_product, v_images, v_targets = 0, [], []  # sum_i H_i lambda, J_i^T lambda
        for along in alongs:
            *v_theta, v_x, v_q = along(direction)
            hessian_product = hessian_product + v_theta[0] if v_theta else hessian_product
            v_images.append(v_x)
            v_targets.append(v_q)
        gradient.lr.sub_(weight * torch.dot(slopes.pop(), direction))
        (v_leaf,) = torch.autograd.grad(augmented, leaf, torch.cat(v_images))
        gradient.images.index_add_(0, batch.rows, -lr * weight * v_leaf)
        gradient.targets.index_add_(0, batch.rows, -lr * weight * torch.cat(v_targets))
        direction = direction if frozen else direction - lr * weight * hessian_product  # lambda_i from lambda_{i+1}
    return gradient


def _kept(student, images, targets, batches, start, memory_gb):
    """Of the last steps, as many ones as have graphs that fit together."""
    if student.record is None or (memory_gb is None and not student.same_bits):
        return
    left = 1e9 * (spare_gb(start.device) if memory_gb is None else memory_gb)
    for batch in reversed(batches):
        left -= len(batch.rows) * graph_bytes(student, start.dtype, tuple(images.shape[1:]), targets.shape[1])
        if left < 0:
            return
        yield 1


@lru_cache(maxsize=16)
def graph_bytes(student: Student, dtype: torch.dtype, shape: tuple[int, int, int], num_classes: int) -> int:
    """Bytes that the graph of one image of an inner step holds: what is saved for two, less what is for one."""
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def saved(count: int) -> int:
        held.clear()
        theta, images = torch.zeros(student.network.flat.size, dtype=dtype), torch.zeros(count, *shape, dtype=dtype)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            graph = student.record(theta, images, torch.zeros(count, num_classes, dtype=dtype))
        del graph  # only now may its memory be taken again, under the same address
        return sum(held.values())

    return saved(2) - saved(1)


def spare_gb(device: torch.device) -> float:
    """What graphs may take where nothing is said: `MEMORY_GB`, or half of the device's free memory."""
    if MEMORY_GB is not None:
        return MEMORY_GB
    return (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available) / 2e9


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
    memory_gb: float | None = None,
) -> Gradient:
    """The same gradient by automatic differentiation through all N steps: arguments and result of `adjoint`.

    Keeps the graphs of all steps, about 3 MB an image and step for ConvNet-3 at 32x32; `piece`, `limit` and
    `memory_gb` are not used: the graphs are there before L is known.
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
