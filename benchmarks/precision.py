"""Whether bfloat16 changes what networks learn: the same networks trained in float32 and in bfloat16 on CIFAR-10.

    python -m benchmarks.precision [--seeds 0 3] [--ipc 1] [--device cpu] [--epochs 1000]

Random real images, the one evaluation recipe, five networks a draw; weights, shuffles and transforms are the same in
both, so that the differences are those of rounding.  Compiled: on a CPU it needs a C++ compiler, and some minutes
a draw.
"""

import argparse
from dataclasses import replace

from ddlib import evaluation, methods
from ddlib.data import datasets
from ddlib.store import loop


def main() -> None:
    """Print the accuracies of each draw's networks in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 3])
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=1000)
    chosen = parser.parse_args()
    train, test = (datasets.load("cifar10", split, device=chosen.device) for split in ("train", "test"))
    method = methods.build("random", ipc=chosen.ipc)
    protocol = evaluation.Protocol(options={"norm": "instance"}, epochs=chosen.epochs, compiled=True)
    for seed in chosen.seeds:
        chosen_images = loop.run(method, method.start(train, {}, seed)).product
        for precision in evaluation.PRECISIONS:
            precise = replace(protocol, precision=precision)
            accuracies = evaluation.evaluate(chosen_images, test, precise, seed=seed).accuracies
            each = " ".join(f"{accuracy:.2f}" for accuracy in accuracies)
            print(f"draw {seed}, {precision:8}: mean {sum(accuracies) / len(accuracies):.2f} of {each}", flush=True)


if __name__ == "__main__":
    main()
