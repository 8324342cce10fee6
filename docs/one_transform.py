"""Random images of CIFAR-10, ten a class, judged with one transform for all images of a mini-batch.

    python docs/one_transform.py

The draws, networks and recipe are those of params/atom/accuracy.draws.hour.yaml, where each image has a transform of
its own.  Prints the accuracy of each draw in percent.
"""

from unittest import mock

from ddlib import study
from ddlib.data import augmentation
from ddlib.evaluation import evaluate
from ddlib.study import notebooks, work

drawn = augmentation._drawn


def shared(uniform, per_group, size, strategy):
    """`Draws` whose rows are all as the first of their group."""
    return drawn([(choice, rows[:1].expand_as(rows)) for choice, rows in uniform], per_group, size, strategy)


def main():
    """Train a network on each draw."""
    (cell,), workplace = notebooks.cells("atom/accuracy", "draws.hour"), study.Workplace("cpu")
    test = work.real_set(cell, "test", workplace)
    for seed in cell.seeds:
        images = work.synthetic_set(cell, seed, workplace)
        with mock.patch.object(augmentation, "_drawn", shared):
            print(seed, *evaluate(images, test, cell.protocol, seed=seed).accuracies, flush=True)


if __name__ == "__main__":
    main()
