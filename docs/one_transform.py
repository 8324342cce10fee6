"""Random images of CIFAR-10, ten a class, judged with one transform for all images of a mini-batch.

    python docs/one_transform.py

The draws, networks and recipe are those of params/atom/accuracy.coresets.hour.yaml, two networks a draw.  There the
images of a mini-batch share the family of their transform, and each draws its parameters; here they share these too.
Prints the accuracies of each draw in percent.
"""

from unittest import mock

from ddlib import study
from ddlib.data import augmentation
from ddlib.evaluation import evaluate
from ddlib.study import notebooks, work

drawn = augmentation._drawn


def shared(uniform, per_group, size, strategy):
    """`Draws` of equal rows in each group; one group a tuple, as `augment_stacked` passes them."""
    return drawn([(choice, rows[:1].expand_as(rows)) for choice, rows in uniform], per_group, size, strategy)


def main():
    """Train two networks on each draw."""
    cells = notebooks.cells("atom/accuracy", "coresets.hour")
    cell = next(cell for cell in cells if (cell.label, cell.ipc) == ("Random", 10))
    workplace = study.Workplace("cpu")
    test = work.real_set(cell, "test", workplace)
    for seed in cell.seeds:
        images = work.synthetic_set(cell, seed, workplace)
        with mock.patch.object(augmentation, "_drawn", shared):
            print(seed, *evaluate(images, test, cell.protocol, seed=seed, networks=[0, 1]).accuracies, flush=True)


if __name__ == "__main__":
    main()
