"""Backward passes of every narrow network, beside float64; `test_models` runs it in a process that may crash or hang.

    python tests/narrow_networks.py THREADS

Prints a line a network when it begins (its name and options) and one when it ends: the largest distance, over a few
passes, of a channels_last gradient from the one in double precision, as a share of the latter's norm.  Where a kernel
writes past its buffers one thread crashes at once; two get wrong gradients now and then, and take many passes.
"""

import copy
import sys

import torch
from test_models import SMALL, images, small


def gradients(network, batch):
    """Gradient of a smooth loss by every parameter, flat, in double precision."""
    loss = network(batch).logsumexp(1).sum() + sum(each.pow(2).mean() for each in network.features(batch).maps)
    return torch.cat([each.double().flatten() for each in torch.autograd.grad(loss, [*network.parameters()])])


def largest_error(network, batch, passes):
    """Largest relative distance of so many gradients in channels_last float32 from the one in float64."""
    reference = gradients(copy.deepcopy(network).double(), batch.double())
    network, batch = (each.to(memory_format=torch.channels_last) for each in (network, batch))
    return max(((gradients(network, batch) - reference).norm() / reference.norm()).item() for _ in range(passes))


def main(threads):
    torch.set_num_threads(threads)
    narrow = [(name, {"width": 3}) for name in SMALL if name.startswith("resnet")]
    for name, options in [*((name, {}) for name in SMALL), *narrow]:
        network = small(name, **options)
        print(name, options, flush=True)
        print(largest_error(network, images(network, count=8), 3 if threads == 1 else 50), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
