"""Herding and K-Center against their definitions and against cases that can be seen."""

import torch

from ddlib.methods.coresets import herd, k_center


def herd_as_defined(vectors, count):
    """The paper's greedy rule, written as loops over candidates."""
    mean, chosen = vectors.mean(0), []
    for t in range(1, count + 1):
        target = t * mean - sum((vectors[i] for i in chosen), torch.zeros_like(mean))
        free = [i for i in range(len(vectors)) if i not in chosen]
        chosen.append(min(free, key=lambda i: float((target - vectors[i]).norm())))
    return chosen


def k_center_as_defined(vectors, count):
    """Start next to the mean; then the point farthest from all chosen ones."""
    chosen = [min(range(len(vectors)), key=lambda i: float((vectors[i] - vectors.mean(0)).norm()))]
    while len(chosen) < count:
        free = [i for i in range(len(vectors)) if i not in chosen]
        chosen.append(max(free, key=lambda i: min(float((vectors[i] - vectors[j]).norm()) for j in chosen)))
    return chosen


def test_herding_follows_its_definition():
    vectors = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert herd(vectors, 15).tolist() == herd_as_defined(vectors, 15)


def test_k_center_follows_its_definition():
    vectors = torch.randn(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert k_center(vectors, 15).tolist() == k_center_as_defined(vectors, 15)


def test_herding_takes_the_point_at_the_mean_first_and_k_center_goes_to_the_rim():
    line = torch.tensor([[-3.0], [-1.0], [0.1], [1.0], [3.0]])
    assert herd(line, 1).tolist() == [2]
    assert k_center(line, 3).tolist() == [2, 0, 4]


def test_all_points_can_be_chosen_once_each_even_when_some_are_equal():
    vectors = torch.zeros(4, 2)
    assert sorted(herd(vectors, 4).tolist()) == [0, 1, 2, 3]
    assert sorted(k_center(vectors, 4).tolist()) == [0, 1, 2, 3]
