"""The ConvNet's layers for gradients that are differentiated once more, with the second derivatives written out.

Automatic differentiation goes some thirty times over a map for the second derivative of a group norm, here ten times.
A gradient has the same bits whether its graph is recorded or not, which torch's norms do not grant.
"""

import copy

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ddlib.models import layers

FEW = 64
"""Weights of an output channel up to which a convolution on a CPU is a product of matrices; an image in colour has 27.

Torch's kernel takes five times as long there, in channels first.
"""


def twice(network: nn.Module, *, values: bool = True) -> nn.Module | None:
    """A copy of `network` with the layers of this module; None where it has layers that have no form here.

    values: whether gradients in weights of convolutions are computed where a graph is recorded; those of the graph, a
        third of the work of which they would be, do not depend on them.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        module.__class__ = FORMS.get(type(module), type(module))
        module.values = values
    known = (*FORMS.values(), layers.Network, nn.Linear, nn.Sequential, nn.ModuleList, nn.Identity)
    return network if all(isinstance(module, known) for module in network.modules()) else None


class Conv2d(nn.Conv2d):
    """A convolution of stride 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        x = x.view_as(x)  # no leaf, which `_wanted` could not tell
        return _Conv.apply(x, self.weight, self.bias, self.padding, self.values)


class InstanceNorm2d(layers.InstanceNorm2d):
    """`layers.InstanceNorm2d` of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The maps normalised."""
        return _Norm.apply(x, self.weight, self.bias)


class ReLU(nn.ReLU):
    """max(x, 0), in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return _ReLU.apply(x)


class AveragePool2x2(layers.AveragePool2x2):
    """`layers.AveragePool2x2`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2)."""
        return _Pool.apply(x)


FORMS = {
    layers.Conv2d: Conv2d,
    layers.InstanceNorm2d: InstanceNorm2d,
    nn.ReLU: ReLU,
    layers.AveragePool2x2: AveragePool2x2,
}


def _convolved(x, w, b, padding):
    """x * w + b."""
    if x.device.type != "cpu" or w[0].numel() > FEW:
        return F.conv2d(x, w, b, padding=padding)
    columns, rows = F.unfold(x, w.shape[2:], padding=padding), w.flatten(1).expand(len(x), -1, -1)
    y = torch.bmm(rows, columns) if b is None else torch.baddbmm(b[:, None], rows, columns)
    return y.unflatten(2, (x.shape[2] + 2 * padding[0] - w.shape[2] + 1, -1))


def _in_images(g, x, w, padding):
    """The gradient of <g, x * w> in x."""
    if x.device.type != "cpu" or w[0].numel() > FEW:
        return _backward(g, x, w, padding, True, False, False)[0]
    columns = torch.bmm(w.flatten(1).t().expand(len(g), -1, -1), g.flatten(2))
    return F.fold(columns, x.shape[2:], w.shape[2:], padding=padding).clone()  # fold's own storage has all the columns


def _backward(g, x, w, padding, *wanted):
    """The gradients of <g, x * w + b> in x, w and b, as far as they are wanted."""
    return torch.ops.aten.convolution_backward(g, x, w, [len(w)], [1, 1], padding, [1, 1], False, [0, 0], 1, wanted)


def _wanted(ctx):
    """Of which inputs the gradient is being taken; `ctx.needs_input_grad` says of which it could be taken."""
    nodes = [node for node, _ in ctx.next_functions]  # those of leaves, which have a variable, cannot be asked
    return [n is not None and (hasattr(n, "variable") or torch._C._will_engine_execute_node(n)) for n in nodes]


class _Conv(Function):
    @staticmethod
    def forward(ctx, x, w, b, padding, values):
        ctx.padding, ctx.values = padding, values
        ctx.save_for_backward(x, w)
        return _convolved(x, w, b, padding)

    @staticmethod
    def backward(ctx, g):
        values = ctx.values or not torch.is_grad_enabled()  # nothing is recorded: this is the graph's own gradient
        return *_ConvBackward.apply(g, *ctx.saved_tensors, ctx.padding, _wanted(ctx), values), None, None


class _ConvBackward(Function):
    """(dx, dw, db) from g; and the gradients of <vx, dx> + <vw, dw> + <vb, db> = <g, vx * w + x * vw + vb>."""

    @staticmethod
    def forward(ctx, g, x, w, padding, wanted, values):
        ctx.padding, ctx.has_dx = padding, wanted[0]
        ctx.save_for_backward(g, x, w)
        dx = _in_images(g, x, w, padding) if wanted[0] else None
        if not values:
            return dx, torch.empty_like(w), w.new_empty(len(w))
        return dx, *_backward(g, x, w, padding, False, *wanted[1:3])[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, vx, vw, vb):
        (g, x, w), (in_g, in_x, in_w, *_), padding = ctx.saved_tensors, _wanted(ctx), ctx.padding
        y = _convolved(x, vw, vb, padding) if in_g else None
        dx = _in_images(g, x, vw, padding) if in_x else None
        if not ctx.has_dx:
            return y, dx, None, None, None, None
        y = y.add_(_convolved(vx, w, None, padding)) if in_g else None
        return y, dx, _backward(g, vx, w, padding, False, True, False)[1] if in_w else None, None, None, None


def _as_rows(x):
    """Maps as one image of B C channels, which are its groups, with their numbers, as torch's kernels take them."""
    channels, pixels = x.shape[0] * x.shape[1], x.shape[2] * x.shape[3]
    return x.reshape(1, channels, pixels), 1, channels, pixels, channels


class _Norm(Function):
    """y = w z + b, z = (x - mean) r and r = 1 / sqrt(variance + eps) of each image and channel."""

    @staticmethod
    def forward(ctx, x, w, b):
        images, channels, *sides = x.shape
        y, mean, r = torch.native_group_norm(x, w, b, images, channels, sides[0] * sides[1], channels, 1e-5)
        ctx.save_for_backward(x, w, mean.view(1, -1), r.view(1, -1))
        return y

    @staticmethod
    def backward(ctx, g):
        return _NormBackward.apply(g, *ctx.saved_tensors)


class _NormBackward(Function):
    """dx = w P(g), dw = sum <g, z>, db = sum g, with P(g) = r (g - mean(g) - z mean(g z)) in each image and channel.

    <vx, dx> + <vw, dw> + <vb, db> = <g, w P(vx) + vw z + vb>, whose gradients, with h = <g, P(vx)>, c = mean(vx z) and
    d = mean(g z), are w P(vx) + vw z + vb in g, sum h in w, and (vw - r w c) P(g) - r w d P(vx) - r w z h / n in x.
    """

    @staticmethod
    def forward(ctx, g, x, w, mean, r):
        dx, gz, g1 = _NormBackward.kernel(g, x, w, mean, r)
        ctx.save_for_backward(g, x, w, mean, r, gz, g1)
        return dx, gz.sum(0), g1.sum(0)

    @staticmethod
    def kernel(g, x, w, mean, r):
        """w P(g), and the sums of g z and of g in each image and channel (B, C)."""
        rows, *sizes = _as_rows(x)
        given = (rows, mean, r, w.repeat(len(x)), *sizes, [True] * 3)
        dx, gz, g1 = torch.ops.aten.native_group_norm_backward(g.reshape(rows.shape), *given)
        return dx.view(x.shape), gz.view(x.shape[:2]), g1.view(x.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, vx, vw, vb):
        g, x, w, mean, r, gz, g1 = ctx.saved_tensors
        y, vz, v1 = _NormBackward.kernel(vx, x, w, mean, r)
        n, mean, r = x.shape[2] * x.shape[3], mean.view(gz.shape), r.view(gz.shape)
        c, d = vz / n, gz / n
        h = r * (torch.linalg.vecdot(g.flatten(2), vx.flatten(2)) - g1 * v1 / n - n * c * d)
        of_g, of_v = r * (vw - r * w * c), -r * r * w * d  # coefficients of dx = of_g g + of_v vx - of_x x + constant
        of_x = r * (of_g * d + of_v * c + r * w * h / n)
        constant = of_x * mean - (of_g * g1 + of_v * v1) / n
        y = y.addcmul_(x, _each(vw * r)).add_(_each(vb - vw * r * mean))
        dx = torch.mul(g, _each(of_g)).addcmul_(vx, _each(of_v)).addcmul_(x, _each(of_x), value=-1)
        return y, dx.add_(_each(constant)), h.sum(0), None, None


def _each(values):
    return values[..., None, None]


class _ReLU(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_min_(0))
        return x

    @staticmethod
    def backward(ctx, g):
        return _Gate.apply(g, *ctx.saved_tensors)


class _Gate(Function):
    """g where y > 0."""

    @staticmethod
    def forward(ctx, g, y):
        ctx.save_for_backward(y)
        return torch.ops.aten.threshold_backward(g, y, 0)

    @staticmethod
    def backward(ctx, v):
        return _Gate.apply(v, *ctx.saved_tensors), None


class _Pool(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return layers.AveragePool2x2.forward(None, x)

    @staticmethod
    def backward(ctx, g):
        return _Unpool.apply(g, ctx.shape)


class _Unpool(Function):
    """A quarter of each value on each of the four pixels that it came from."""

    @staticmethod
    def forward(ctx, g, shape):
        g = (0.25 * g).repeat_interleave(2, 3).repeat_interleave(2, 2)
        return F.pad(g, (0, shape[3] - g.shape[3], 0, shape[2] - g.shape[2]))

    @staticmethod
    def backward(ctx, v):
        return _Pool.apply(v), None
