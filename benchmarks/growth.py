"""How time and memory of a step grow, beside what theory says: log-log lines in one figure, each with both slopes.

    OMP_NUM_THREADS=1 python -m benchmarks.growth [--repeats 3] [--figure docs/growth]

Each line varies one size (images per class, real images, width, classes, side, inner steps, T) and keeps the others.
CPU seconds are the median of the steps after the first; memory is the most that tensors hold at once.  Arithmetic and
the number of kernels that a GPU would launch are counted, so that they say the same on any machine.  A slope is that of
the straight line through the logarithms; the one of theory is of the formula beside it, over the same sizes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks import harness
from benchmarks.harness import CLASSES, CLOCKS, SIDE
from benchmarks.trajectory_matching import prepared
from ddlib import methods, report, seeding
from ddlib.data.datasets import ImageSet
from ddlib.methods import unrolling
from ddlib.models import diffusion, passes
from ddlib.store import progress, provenance

REAL, WIDTH = 16, 32
FREE = ("view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "alias",
        "as_strided", "split", "unbind", "empty", "_unsafe_view", "diagonal", "split_with_sizes")  # fmt: skip
"""Operators that launch no kernel."""


@dataclass(frozen=True)
class Line:
    """One size that varies.

    build: size -> a step to be taken.
    time, memory: size -> what theory says that they are proportional to; memory None where passes of a fixed size
        bound it.
    formula: of both, for the figure.
    """

    method: str
    axis: str
    sizes: Sequence[int]
    build: Callable[[int], Callable[[], object]]
    time: Callable[[int], float]
    memory: Callable[[int], float] | None
    formula: str


def matching(name: str, *, real: int = REAL, classes: int = CLASSES, side: int = SIDE, **settings) -> Callable:
    """A step of feature or gradient matching."""
    shown = harness.pictures(max(real, settings.get("ipc", 1)) * classes, (3, side, side))
    names = tuple(f"class {k}" for k in range(classes))
    train = ImageSet("pictures", "train", shown.images, torch.arange(len(shown)) % classes, names, shown.space)
    settings = {"ipc": 1, "norm": "instance", "width": WIDTH, "depth": 3} | settings
    method = methods.build(name, batch_real=real, **settings)
    return partial(method.step, method.start(train, {}, 0))


def inner_loop(steps: int, *, way: str) -> Callable:
    """The gradient of trajectory matching through that many steps on ten images each."""
    scene = prepared(steps, 10, WIDTH)
    student = unrolling.student(passes.pure("convnet", {"width": WIDTH}, shape=(3, SIDE, SIDE), num_classes=CLASSES))
    given = {name: getattr(scene, name) for name in ("images", "targets", "lr", "batches")}
    return lambda: unrolling.GRADIENTS[way](student, scene.start, scene.goal, **given, memory_gb=0.0)


def through_prior(steps: int, *, checkpointed: bool) -> Callable:
    """A step of LD3M with a sampler of T steps."""
    method = methods.build("ld3m", ipc=1, steps=steps, batch_real=REAL, width=WIDTH, checkpointed=checkpointed)
    prior = diffusion.small((3, SIDE, SIDE), CLASSES, factor=2, width=32, generator=seeding.generator(0, "prior"))
    return partial(method.step, method.start(harness.pictures(2 * REAL * CLASSES), {"prior": prior}, 0))


def arithmetic(width: int) -> float:
    """Products of ConvNet-3's forward pass for one image."""
    return 9 * SIDE**2 * (3 * width + width**2 / 4 + width**2 / 16)


def whole(value: int) -> float:
    """In proportion."""
    return value


LINES = (
    Line("ATOM", "images per class", (1, 4, 16, 64), lambda n: matching("atom", ipc=n), lambda n: REAL + 2 * n,
         lambda n: REAL + 2 * n, "B + 2 IPC"),
    Line("DM", "real images per class", (16, 64, 256), lambda n: matching("dm", real=n), lambda n: n + 2, None,
         "B + 2 IPC"),
    Line("DataDAM", "width", (16, 32, 64, 128), lambda n: matching("datadam", width=n), arithmetic, None,
         "products of the network"),
    Line("ATOM", "classes", (2, 8, 32), lambda n: matching("atom", classes=n), whole, None, "K"),
    Line("DM", "side", (16, 32, 64), lambda n: matching("dm", side=n), lambda n: n**2, None, "pixels"),
    Line("MTT, sweep", "inner steps", (4, 16, 64), partial(inner_loop, way="adjoint"), whole, lambda n: 1,
         "N; one graph"),
    Line("MTT, unrolled", "inner steps", (4, 8, 16), partial(inner_loop, way="unrolled"), whole, whole, "N; N graphs"),
    Line("LD3M", "T", (2, 5, 10, 20), partial(through_prior, checkpointed=False), whole, whole, "T; T graphs"),
    Line("LD3M, checkpointed", "T", (2, 5, 10, 20), partial(through_prior, checkpointed=True), whole, lambda n: 1,
         "T; one graph"),
)  # fmt: skip


class Counts(TorchDispatchMode):
    """Counts operators that would launch a kernel, bytes that they read and write, and operations of products."""

    def __init__(self):
        super().__init__()
        self.kernels = self.bytes = self.operations = 0

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        packet, result = operator.overloadpacket, operator(*arguments, **(keywords or {}))
        if packet.__name__ not in FREE:
            self.kernels += 1
            self.bytes += sum(
                x.nbytes for x in tree_leaves((arguments, keywords, result)) if isinstance(x, torch.Tensor)
            )
        if packet in flop_registry:
            self.operations += flop_registry[packet](*arguments, **(keywords or {}), out_val=result)
        return result


def measured(step: Callable[[], object], repeats: int) -> dict[str, float]:
    """CPU seconds, MiB of tensors, GFLOP, GB moved and kernels of a step."""
    step()
    seconds = []
    for _ in range(repeats):
        begin = CLOCKS["cpu"]()
        step()
        seconds.append(CLOCKS["cpu"]() - begin)
    memory = progress.peak_of_tensors(step, "cpu") / harness.MEBIBYTE
    with Counts() as counts:
        step()
    return {
        "seconds": median(seconds), "MiB": memory, "GFLOP": counts.operations / 1e9, "GB": counts.bytes / 1e9,
        "kernels": counts.kernels,
    }  # fmt: skip


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of the straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def slopes(line: Line, values: Sequence[dict[str, float]], what: str) -> str:
    """The measured slope, and that of theory."""
    theory = line.memory if what == "MiB" else line.time
    wanted = f"{slope(line.sizes, [theory(n) for n in line.sizes]):.2f}" if theory else "-"
    return f"{slope(line.sizes, [value[what] for value in values]):.2f} ({wanted})"


def draw(rows: Sequence[tuple[Line, list[dict[str, float]]]], path: str) -> None:
    """The figure: time at the left, memory at the right, relative to the smallest size of each line."""
    report.set_theme()
    figure, below = report.Picture(figsize=(9, 5.6), layout="constrained"), {"loc": "upper left", "ncols": 2}
    titles = {"seconds": "CPU time", "MiB": "memory of tensors"}
    for ax, (what, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for i, (line, values) in enumerate(rows):
            relative = [value[what] / values[0][what] for value in values]
            label = f"{line.method}, {line.axis}: {slopes(line, values, what)}"
            look = {"color": report.PALETTE[i % 8], "marker": "osv^DPX<>"[i], "markersize": 4}
            ax.plot([size / line.sizes[0] for size in line.sizes], relative, label=label, **look)
        ax.set(xscale="log", yscale="log", xlabel="size, in smallest sizes", ylabel="relative", title=title)
        ax.legend(fontsize=6, title="slope (of theory)", title_fontsize=6, bbox_to_anchor=(0, -0.14), **below)
    folder, _, name = path.rpartition("/")
    report.save(figure, name, folder=folder or ".", provenance=provenance.provenance())


def main() -> None:
    """Measure every line, print the table and draw the figure."""
    parser = harness.options(__doc__)
    parser.add_argument("--figure", help="where to draw, without an ending, such as docs/growth")
    case = harness.begin(parser, None)
    rows = []
    print(f"{'line':40} {'size':>5} {'CPU s':>8} {'MiB':>8} {'GFLOP':>8} {'GB':>8} {'kernels':>8}")
    for line in LINES:
        values = [measured(line.build(size), case.repeats) for size in line.sizes]
        rows.append((line, values))
        for size, value in zip(line.sizes, values, strict=True):
            numbers = f"{value['seconds']:8.3f} {value['MiB']:8.1f} {value['GFLOP']:8.2f}"
            numbers += f" {value['GB']:8.2f} {value['kernels']:8}"
            print(f"{f'{line.method}, {line.axis}':40} {size:5} {numbers}", flush=True)
        for what in ("seconds", "GFLOP", "MiB"):
            print(f"    slope of {what}: {slopes(line, values, what)} of theory, {line.formula}", flush=True)
    if case.figure:
        draw(rows, case.figure)


if __name__ == "__main__":
    main()
