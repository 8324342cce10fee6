"""The distances against cases worked out by hand and against their definitions written as loops."""

import pytest
import torch

from ddlib.methods import objectives


def test_attention_of_a_worked_case():
    # Two channels on a 1x2 map, by place: |1|^2 + |2|^2 = 5 and |-2|^2 + |0|^2 = 4, so z = (5, 4) / sqrt(41).
    maps, expected = torch.tensor([[[[1.0, -2.0]], [[2.0, 0.0]]]]), torch.tensor([[5.0, 4.0]]) / 41**0.5
    torch.testing.assert_close(objectives.spatial_attention(maps, 2), expected)
    # By channel: |1|^2 + |-2|^2 = 5 and |2|^2 + 0 = 4.
    torch.testing.assert_close(objectives.channel_attention(maps, 2), expected)
    swapped = torch.tensor([[[[1.0, 0.0]], [[2.0, -2.0]]]])  # now 1 and 8: the channel decides, not the place
    torch.testing.assert_close(objectives.channel_attention(swapped, 2), torch.tensor([[1.0, 8.0]]) / 65**0.5)


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8, 0.5])
def test_power_is_the_power_of_the_magnitude(p):
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    torch.testing.assert_close(objectives.power(x, p), x.abs() ** p)


def test_attention_of_a_dead_layer_is_zero_and_has_finite_gradients():
    maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
    z = objectives.spatial_attention(maps) + objectives.channel_attention(maps).sum(1, keepdim=True)
    z.sum().backward()
    assert torch.equal(z, torch.zeros_like(z)) and torch.isfinite(maps.grad).all()


def test_class_means_are_taken_class_by_class_of_normalised_images():
    # One image twice as bright as the other: after normalising each, both count the same.
    maps = torch.rand(1, 2, 3, 3)
    pair = torch.cat([maps, 2 * maps])
    mean = objectives.class_means(objectives.spatial_attention(pair), 1)
    torch.testing.assert_close(mean, objectives.spatial_attention(maps))
    x = torch.arange(12.0).reshape(6, 2)
    torch.testing.assert_close(objectives.class_means(x, 3), torch.tensor([[1.0, 2.0], [5.0, 6.0], [9.0, 10.0]]))


def test_weighted_distance_sums_entries_classes_and_layers():
    real = [torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0], [1.0]])]
    syn = [torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0], [1.0]])]
    # (1 + 4 + 0 + 4) * 1 + (4 + 0) * 10
    assert objectives.weighted_distance([1.0, 10.0], real, syn) == 49.0


def test_gradient_distance_equals_its_definition_row_by_row():
    torch.manual_seed(0)
    shapes = ((3, 4, 2, 3, 3), (3, 5, 7), (3, 5))
    real, syn = ([torch.randn(shape, dtype=torch.float64) for shape in shapes] for _ in range(2))
    expected = torch.zeros(3, dtype=torch.float64)
    for k in range(3):
        for r, s in zip(real[:2], syn[:2], strict=True):  # the bias does not count
            for a, b in zip(r[k].flatten(1), s[k].flatten(1), strict=True):
                expected[k] += 1 - a @ b / (a.norm() * b.norm() + 1e-6)
    torch.testing.assert_close(objectives.gradient_distance(real, syn), expected)


@pytest.mark.parametrize("attention", [objectives.spatial_attention, objectives.channel_attention])
def test_attention_gradients_reach_the_maps(attention):
    torch.manual_seed(0)
    maps = (torch.rand(2, 2, 3, 3, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(attention, (maps,))


@pytest.mark.parametrize(("p_spatial", "p_channel"), [(4, 4), (2, 4)])
def test_both_attentions_are_the_two(p_spatial, p_channel):
    maps = torch.rand(3, 4, 5, 5)
    both = objectives.both_attentions(maps, p_spatial, p_channel)
    assert torch.equal(both[0], objectives.spatial_attention(maps, p_spatial))
    assert torch.equal(both[1], objectives.channel_attention(maps, p_channel))


def softmax(logits):
    """Of one image's logits, as it is defined."""
    powers = [torch.exp(value) for value in logits]
    return [value / sum(powers) for value in powers]


def squares(p, q):
    return sum((a - b) ** 2 for a, b in zip(p, q, strict=True))


PAIRED = {
    "log_probability": lambda r, s: squares(*([p.log() for p in softmax(x)] for x in (r, s))) / len(r),
    "logit": lambda r, s: squares(r, s) / len(r),
}
FOUND = {"log_probability": objectives.log_probability_distance, "logit": objectives.logit_distance}


@pytest.mark.parametrize("name", PAIRED)
def test_distances_of_paired_logits_are_means_over_the_images(name):
    torch.manual_seed(0)
    real, syn = 3 * torch.randn(2, 5, 4, dtype=torch.float64)
    expected = sum(PAIRED[name](r, s) for r, s in zip(real, syn, strict=True)) / 5
    torch.testing.assert_close(FOUND[name](real, syn), expected)
    assert FOUND[name](real, real) == 0
    if name != "logit":  # which is the one that sees a constant added to an image's logits
        torch.testing.assert_close(FOUND[name](real + torch.arange(5.0)[:, None], syn), expected)


def test_means_are_those_of_the_classes_that_are_there():
    torch.manual_seed(0)
    labels = torch.tensor([3, 0, 3, 3, 0, 4])  # none of 1, 2 and 5
    real, syn = torch.randn(2, 6, 7, dtype=torch.float64)
    total, classes = 0, sorted(set(labels.tolist()))
    for k in classes:
        rows = [i for i, label in enumerate(labels) if label == k]
        real_mean, syn_mean = (sum(x[i] for i in rows) / len(rows) for x in (real, syn))
        total += sum((a - b) ** 2 for a, b in zip(real_mean, syn_mean, strict=True)) / 7
    found = objectives.class_mean_distance(real, syn, labels, 6)
    torch.testing.assert_close(found, total / len(classes))
    order = torch.randperm(6)  # of images, which must not count
    torch.testing.assert_close(objectives.class_mean_distance(real[order], syn[order], labels[order], 6), found)


def test_absolute_distance_sums_tensors_and_entries():
    real = [torch.tensor([[1.0, -2.0], [0.0, 0.0]]), torch.tensor([3.0])]
    syn = [torch.tensor([[-1.0, -2.0], [0.5, 0.0]]), torch.tensor([10.0])]
    assert objectives.absolute_distance(real, syn) == 2 + 0.5 + 7
