import copy
import os
import random
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from draws import seeded
from refusals import refuses
from torch import nn
from torch.func import functional_call, grad, stack_module_state

from ddlib import ROOT, models
from ddlib.models import layers
from ddlib.models.layers import InstanceNorm2d

SMALL = {  # of each network, a small one
    "convnet": ((3, 16, 16), {"width": 8}),
    "alexnet": ((3, 16, 16), {}),
    "vgg11": ((3, 32, 32), {"width": 4}),
    "resnet10": ((3, 16, 16), {"width": 4}),
    "resnet10_ap": ((3, 16, 16), {"width": 4}),
    "resnet18": ((3, 16, 16), {"width": 4}),
    "resnet18_ap": ((3, 16, 16), {"width": 4}),
    "densenet": ((3, 16, 16), {"growth": 4}),
    "vit": ((3, 16, 16), {"dim": 16, "depth": 2, "heads": 2, "head_dim": 8, "mlp_dim": 16, "dropout": 0.0}),
    "mlp": ((3, 16, 16), {"width": 16}),
    "lenet": ((3, 16, 16), {}),
}

DEEP = ("densenet",)  # 120 layers, through which the last bits grow
IN_DOUBLE = (*DEEP, "resnet18_ap")  # compared in double precision: float32 kernels differ by processor


def small(name, seed=0, **options):
    shape, own = SMALL[name]
    return models.build(name, shape=shape, num_classes=5, generator=seeded(seed), **{**own, **options})


def images(model, count=4, seed=7, **kind):
    return torch.randn(count, *model.shape, generator=seeded(seed), **kind)


# Sizes: the counts are those of the published networks.


@pytest.mark.parametrize(
    ("name", "side", "num_classes", "options", "count", "features"),
    [
        ("convnet", 32, 10, {}, 320_010, 2048),
        ("convnet", 32, 100, {}, 504_420, 2048),
        ("convnet", 64, 200, {}, 857_160, 2048),
        ("convnet", 64, 200, {"depth": 3}, 1_938_120, 8192),
        ("convnet", 128, 10, {"depth": 5}, 615_690, 2048),
        ("convnet", 128, 10, {"depth": 6}, 748_170, 512),
        ("mlp", 32, 10, {}, 411_146, 128),
        ("lenet", 32, 10, {}, 62_006, 84),
        ("alexnet", 32, 10, {}, 1_872_202, 3072),
        ("alexnet", 32, 10, {"norm": "batch"}, 1_874_122, 3072),
        ("alexnet", 64, 200, {}, 4_299_272, 12_288),
        ("vgg11", 32, 10, {}, 9_231_114, 512),
        ("vgg11", 32, 10, {"norm": "batch"}, 9_231_114, 512),
        ("vgg11", 64, 200, {}, 9_635_784, 2048),
        ("resnet18", 32, 10, {}, 11_173_962, 512),
        ("resnet18", 32, 10, {"norm": "batch"}, 11_173_962, 512),
        ("resnet18", 32, 100, {}, 11_220_132, 512),
        ("resnet18", 64, 200, {}, 11_578_632, 2048),
        ("resnet18_ap", 32, 10, {}, 11_250_762, 8192),
        ("resnet10", 32, 10, {"width": 32, "norm": "batch"}, 1_228_970, 256),  # DiM states 1.23 M
        ("resnet18", 32, 10, {"width": 32, "norm": "batch"}, 2_797_610, 256),  # DiM states 2.80 M
        ("resnet10_ap", 32, 10, {"width": 32, "norm": "batch"}, 1_267_370, 4096),
        ("resnet18_ap", 32, 10, {"width": 32, "norm": "batch"}, 2_836_010, 4096),
        ("resnet10", 32, 10, {}, 4_903_242, 512),
        ("resnet10_ap", 32, 10, {"width": 32, "norm": "batch", "pooling": "global"}, 1_228_970, 256),  # DiM's
        ("resnet18_ap", 32, 10, {"width": 32, "norm": "batch", "pooling": "global"}, 2_797_610, 256),
        ("resnet10_ap", 32, 10, {}, 4_980_042, 8192),
        ("densenet", 32, 10, {}, 1_000_618, 384),
        ("densenet", 64, 200, {}, 1_000_618 + 190 * 385, 384),
        ("vit", 32, 10, {}, 9_523_722, 512),
        ("vit", 64, 200, {}, 9_719_496, 512),
        ("convnet", 256, 10, {}, 763_530, 2048),  # from here on those of GLaD's and LD3M's evaluation
        ("vgg11", 128, 10, {"grid": 7}, 9_476_874, 25_088),
        ("vgg11", 256, 10, {"grid": 7}, 9_476_874, 25_088),
        ("resnet18", 256, 10, {"pooling": "global"}, 11_173_962, 512),
        ("vit", 128, 10, {"patch": 16, "depth": 10, "layer_norm": False}, 16_176_650, 512),
    ],
)
def test_parameter_counts_and_embeddings(name, side, num_classes, options, count, features):
    with torch.device("meta"):  # shapes without arithmetic
        model = models.build(name, shape=(3, side, side), num_classes=num_classes, **options)
        assert sum(parameter.numel() for parameter in model.parameters()) == count
        assert model.features(torch.zeros(2, 3, side, side)).embedding.shape == (2, features)
        assert model(torch.zeros(2, 3, side, side)).shape == (2, num_classes)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_vit_is_the_plain_loop(layer_norm):
    model = small("vit", layer_norm=layer_norm).eval()
    assert any(isinstance(module, nn.LayerNorm) for module in model.modules()) == layer_norm
    x, norm = images(model), (lambda t: F.layer_norm(t, (16,))) if layer_norm else lambda t: t
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(4, 16, 48)
    tokens = torch.cat([model.class_token.weight.expand(4, 1, -1), model.to_token(patches)], 1) + model.positions.weight
    for layer in model.layers:
        qkv = layer.attention.to_qkv(norm(tokens)).chunk(3, -1)
        q, k, v = (each.view(4, 17, 2, 8).transpose(1, 2) for each in qkv)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(4, 17, 16)
        tokens = tokens + layer.attention.to_out(seen)
        tokens = tokens + layer.mlp[3](F.gelu(layer.mlp[0](norm(tokens))))
    torch.testing.assert_close(model.features(x).embedding, norm(tokens[:, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (7, 7), (2, 9), (14, 3)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["average", "adaptive"])
def test_poolings_equal_the_kernels(kind, size, memory_format):
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=seeded()).to(memory_format=memory_format)
    x.requires_grad_()
    if kind == "average":
        ours, theirs = layers.pooling("avg")(x), F.avg_pool2d(x, 2)
    else:
        ours, theirs = layers.AdaptiveMaxPool(7)(x), F.adaptive_max_pool2d(x, 7)
    direction = torch.randn(theirs.shape, dtype=torch.float64, generator=seeded(1))
    gradients = [torch.autograd.grad(y, x, direction)[0] for y in (ours, theirs)]
    torch.testing.assert_close((ours, gradients[0]), (theirs, gradients[1]), rtol=1e-14, atol=1e-14)


def test_vgg_with_a_grid_is_the_plain_one_up_to_its_last_map():
    plain, pooled = small("vgg11"), small("vgg11", grid=7)
    last = F.max_pool2d(plain.features(images(plain)).maps[-1], 2)
    assert torch.equal(pooled.features(images(plain)).embedding, F.adaptive_max_pool2d(last, 7).flatten(1))


def test_resnet18_may_average_all_of_its_last_map():
    model = models.build("resnet18", shape=(3, 64, 48), num_classes=5, width=4, pooling="global", generator=seeded())
    features = model.features(images(model))
    assert features.maps[-1].shape == (4, 32, 8, 6)
    torch.testing.assert_close(features.embedding, features.maps[-1].mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("convnet", 32, [(128, 32), (128, 16), (128, 8)]),
        ("alexnet", 32, [(128, 32), (192, 16), (256, 8), (192, 8), (192, 8)]),
        ("vgg11", 32, [(64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)]),
        ("resnet18", 32, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("resnet18_ap", 32, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("resnet10", 32, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("resnet10_ap", 32, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("densenet", 32, [(96, 32), (192, 16), (384, 8), (384, 4)]),
        ("densenet", 28, [(96, 28), (192, 14), (384, 7), (384, 3)]),
        ("densenet", 8, [(96, 8), (192, 4), (384, 2), (384, 1)]),
        ("lenet", 32, [(6, 28), (16, 10)]),
        ("mlp", 32, []),
        ("vit", 32, []),
    ],
)
def test_maps_are_every_block_before_its_pooling(name, side, expected):
    with torch.device("meta"):
        model = models.build(name, shape=(3, side, side), num_classes=10)
        maps = model.features(torch.zeros(2, 3, side, side)).maps
    assert [tuple(each.shape) for each in maps] == [(2, channels, size, size) for channels, size in expected]


@pytest.mark.parametrize(("side", "depth"), [(7, 1), (8, 1), (16, 2), (28, 3), (32, 3), (64, 4), (128, 5), (256, 6)])
def test_convnet_depth_follows_the_image_side(side, depth):
    assert len(models.build("convnet", shape=(1, side, side), num_classes=10, width=4).blocks) == depth


@pytest.mark.parametrize(
    ("name", "published", "usual"), [("convnet", 3, 1), ("vgg11", 3, 1), ("alexnet", 4, 2), ("lenet", 2, 0)]
)
def test_one_channel_images_of_28_pixels_are_padded_to_32(name, published, usual):
    mnist, large = (models.build(name, shape=(1, side, side), num_classes=10) for side in (28, 32))
    assert mnist.blocks[0].conv.padding == (published, published)
    assert large.blocks[0].conv.padding == (usual, usual)
    assert mnist.classifier.in_features == large.classifier.in_features


ODD = (3, 36, 48)
NORMED = [name for name in models.names() if "norm" in models.options_of(name)]
RESNETS = ("resnet10", "resnet18", "resnet10_ap", "resnet18_ap")
BUILT = [(name, shape, {}) for name in models.names() for shape in ((1, 28, 28), ODD, (3, 64, 64))]
BUILT += [(name, ODD, {"norm": norm}) for name in NORMED for norm in ("batch", "layer", "group", "none")]
BUILT += [(name, (1, side, side), {"norm": "batch"}) for name in RESNETS for side in (8, 9, 15, 16, 31)]  # DiM's pool
BUILT += [("densenet", (1, side, side), {}) for side in (8, 9, 15, 16, 31)]


@pytest.mark.parametrize(("name", "shape", "options"), BUILT)
def test_networks_follow_the_image_shape(name, shape, options):
    with torch.device("meta"):
        model = models.build(name, shape=shape, num_classes=3, **options)
        assert model(torch.zeros(2, *shape)).shape == (2, 3)


# Functions: against the same networks written plainly.


@pytest.mark.parametrize("pool", ["avg", "max", "none"])
@pytest.mark.parametrize("act", ["relu", "sigmoid", "leaky_relu", "swish"])
def test_convnet_is_the_plain_loop(act, pool):
    model = small("convnet", activation=act, pooling=pool)
    functions = {"relu": F.relu, "sigmoid": torch.sigmoid, "leaky_relu": F.leaky_relu, "swish": F.silu}
    x, maps = images(model), []
    for block in model.blocks:
        x = F.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
        x = (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(x.var((2, 3), correction=0, keepdim=True) + 1e-5)
        x = functions[act](x)  # gains are 1 and biases 0 in a fresh network
        maps.append(x)
        x = {"avg": lambda x: F.avg_pool2d(x, 2), "max": lambda x: F.max_pool2d(x, 2), "none": lambda x: x}[pool](x)
    features = model.features(images(model))
    for ours, plain in zip(features.maps, maps, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.embedding, x.flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("instance", lambda: nn.GroupNorm(8, 8)),
        ("batch", lambda: nn.BatchNorm2d(8)),
        ("layer", lambda: nn.LayerNorm((8, 16, 16))),
        ("group", lambda: nn.GroupNorm(4, 8)),
    ],
)
def test_norms_are_the_frameworks(kind, reference):
    ours, theirs = small("convnet", norm=kind).blocks[0].norm, reference()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(torch.randn(mine.shape, generator=seeded(mine.ndim)))
            other.copy_(mine)
    x = torch.randn(4, 8, 16, 16, generator=seeded()) * 2 + 1
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x + 1), theirs.eval()(x + 1))


def test_instance_norm_kernels_agree_and_are_differentiable_twice():
    norm = InstanceNorm2d(3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=seeded(), requires_grad=True)
    other = F.instance_norm(x, weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(norm(x), other, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradgradcheck(norm, (x,))
    half = norm.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("name", "blocks"), [("resnet10", 1), ("resnet18", 2)])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_resnets_are_torchvisions_with_a_small_stem(norm, name, blocks):
    layer = {"instance": lambda channels: nn.GroupNorm(channels, channels), "batch": nn.BatchNorm2d}[norm]
    theirs = torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [blocks] * 4, num_classes=5, norm_layer=layer
    )
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = models.build(name, shape=(3, 32, 32), num_classes=5, norm=norm, generator=seeded())
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(mine)
    torch.testing.assert_close(ours(images(ours)), theirs(images(ours)), rtol=1e-3, atol=1e-4)


def test_resnet18_ap_downsamples_by_average_pooling():
    model = small("resnet18_ap")
    block = model.stages[1][0]
    x = torch.randn(2, 4, 16, 16, generator=seeded())
    inner = F.avg_pool2d(F.relu(block.norm1(F.conv2d(x, block.conv1.weight, padding=1))), 2)
    inner = block.norm2(F.conv2d(inner, block.conv2.weight, padding=1))
    side = block.shortcut[2](F.avg_pool2d(F.conv2d(x, block.shortcut[0].weight), 2))
    torch.testing.assert_close(block(x), F.relu(inner + side))
    features = model.features(images(model))
    assert torch.equal(features.embedding, features.maps[-1].flatten(1))


def test_densenet_is_torchvisions_with_a_small_stem():
    theirs = torchvision.models.DenseNet(
        growth_rate=12, block_config=(6, 12, 24, 16), num_init_features=24, num_classes=5
    )
    theirs.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    theirs.features.norm0 = theirs.features.relu0 = theirs.features.pool0 = nn.Identity()
    ours = models.build("densenet", shape=(3, 32, 32), num_classes=5, generator=seeded())
    with torch.no_grad():
        for index, mine in enumerate(ours.parameters()):  # gains and biases that tell the norms from one another
            if mine.ndim == 1:
                mine.add_(torch.randn(mine.shape, generator=seeded(index)), alpha=0.1)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(mine)
    for mode in (True, False):
        torch.testing.assert_close(
            ours.train(mode)(images(ours)), theirs.train(mode)(images(ours)), rtol=1e-3, atol=1e-4
        )


def test_densenet_without_norms_joins_what_came_before_the_relu():
    model = small("densenet", norm="none")
    layer, x = model.blocks[0][1], torch.randn(2, 8, 16, 16, generator=seeded())
    before = x.clone()
    y = F.conv2d(F.relu(F.conv2d(F.relu(before), layer.conv1.weight)), layer.conv2.weight, padding=1)
    torch.testing.assert_close(layer(x), torch.cat([before, y], dim=1))


def test_vit_drops_in_training_only():
    model = small("vit", dropout=0.1)
    x = images(model)
    with torch.random.fork_rng():
        assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


# What every network promises.


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_classifier_of_the_embedding(name):
    model = small(name)
    features = model.features(images(model))
    assert isinstance(features, models.Features)
    assert torch.equal(model(images(model)), model.classifier(features.embedding))
    assert all(each.min() >= 0 and each.requires_grad for each in features.maps)
    assert [id(each) for each in features.maps] == [id(each) for each in dict.fromkeys(features.maps)]


@pytest.mark.parametrize("name", ["convnet", "alexnet", "vgg11", "resnet18", "densenet", "lenet"])
def test_maps_survive_what_follows_in_place(name):
    model = small(name)
    first = list(model.blocks)[0] if hasattr(model, "blocks") else nn.Sequential(model.stem, model.stages[0])
    with torch.no_grad():
        maps = model.features(images(model)).maps
        assert torch.equal(maps[0], first(images(model)))


def test_without_gradients_no_map_outlives_its_use():
    model = small("vgg11")
    alive = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: alive.append(weakref.ref(output)))
    count = []
    model.poolings[-1].register_forward_hook(lambda *_: count.append(sum(each() is not None for each in alive)))
    with torch.no_grad():
        model(images(model))
        model.features(images(model))
    assert count == [1, 8]  # the last map alone; then all that `features` returns


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_gradients_exist(name):
    model = small(name)
    x = images(model, 2).requires_grad_()
    loss = model(x).logsumexp(1).sum() + sum(each.pow(2).mean() for each in model.features(x).maps)
    first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(sum(each.pow(2).sum() for each in first), x)
    assert second.isfinite().all() and second.any()


@pytest.mark.parametrize("name", SMALL)
def test_channels_last_gives_the_same(name):
    kind = torch.float64 if name in IN_DOUBLE else torch.float32
    model = small(name).to(kind)
    x = images(model).to(kind)
    expected = model.features(x)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    features = other.features(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_narrow_channels_last_networks_are_right_in_every_pass(threads):
    command = [sys.executable, ROOT / "tests" / "narrow_networks.py", str(threads)]
    # Idle threads sleep: two spinning on cores that other tests use as well would take minutes.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert child.returncode == 0, f"died at {child.stdout.splitlines()[-1:]}: {child.stderr}"
    begun, errors = child.stdout.splitlines()[::2], [float(line) for line in child.stdout.splitlines()[1::2]]
    assert len(begun) == len(errors) >= len(SMALL)
    assert max(errors) < 1e-3, begun[errors.index(max(errors))]


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_convnet_maps_stay_channels_last(norm, precision):
    model = small("convnet", norm=norm).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        maps = model.features(images(model).to(memory_format=torch.channels_last)).maps
    assert all(each.is_contiguous(memory_format=torch.channels_last) and each.dtype == precision for each in maps)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_autocast_is_close(name):
    model = small(name)
    expected = model(images(model))
    with torch.autocast("cpu", torch.bfloat16):
        ours = model(images(model)).float()
    assert (ours - expected).norm() < (0.1 if name in DEEP else 0.05) * expected.norm()


# Several networks at once.


def stacked(networks):
    parameters, buffers = stack_module_state(networks)
    return {key: value.detach() for key, value in parameters.items()}, buffers


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_vmapped_networks_equal_the_loop(name, norm):
    options = {"norm": norm} if name not in ("vit", "mlp", "lenet") else {}
    kind = torch.float64 if name in IN_DOUBLE else torch.float32
    networks = [small(name, seed, **options).to(kind) for seed in range(3)]
    parameters, buffers = stacked(networks)
    labels = torch.tensor([0, 1, 2, 3])
    x = torch.stack([images(network, seed=seed).to(kind) for seed, network in enumerate(networks)])

    def loss(parameters, buffers, x):
        logits = functional_call(networks[0], (parameters, buffers), (x,))
        return F.cross_entropy(logits, labels), logits

    gradients, logits = torch.vmap(grad(loss, has_aux=True))(parameters, buffers, x)
    for index, network in enumerate(networks):
        expected = network(x[index])
        torch.testing.assert_close(logits[index], expected, rtol=1e-3, atol=1e-4)
        plain = torch.autograd.grad(F.cross_entropy(expected, labels), list(network.parameters()))
        for (key, _), each in zip(network.named_parameters(), plain, strict=True):
            torch.testing.assert_close(gradients[key][index], each, rtol=1e-3, atol=1e-4, msg=key)
        for key, buffer in network.named_buffers():
            torch.testing.assert_close(buffers[key][index], buffer, msg=key)
    assert norm != "batch" or not options or any((value != value[0, 0]).any() for value in buffers.values())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_vmap_over_channels_last_images_and_evaluation_mode(norm):
    networks = [small("convnet", seed, norm=norm).eval() for seed in range(2)]
    parameters, buffers = stacked(networks)
    x = images(networks[0]).to(memory_format=torch.channels_last)
    for kind in (torch.float32, torch.bfloat16):
        call = torch.vmap(lambda p, b, x: functional_call(networks[0], (p, b), (x,)), in_dims=(0, 0, None))
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            ours = call(parameters, buffers, x)
            plain = torch.stack([network(x) for network in networks])
        tolerance = 1e-4 if kind == torch.float32 else 0.02
        assert (ours - plain).float().norm() < tolerance * plain.float().norm()


GROUPED = ("convnet", "alexnet", "vgg11", "resnet10", "resnet18_ap")
KINDS = [(name, norm) for name in GROUPED for norm in ("instance", "batch")]


@pytest.mark.parametrize(
    ("name", "norm"), [*KINDS, ("convnet", "layer"), ("convnet", "group"), ("mlp", None), ("lenet", None)]
)
@pytest.mark.parametrize("training", [True, False])
def test_grouped_networks_equal_the_loop(name, norm, training):
    networks = [small(name, seed, **({"norm": norm} if norm else {})).double().train(training) for seed in range(3)]
    assert networks[0].grouped
    parameters, buffers = stack_module_state(networks)
    x = torch.stack([images(network, seed=seed).double() for seed, network in enumerate(networks)])
    logits = functional_call(networks[0], (parameters, buffers), (x,))
    gradients = torch.autograd.grad(logits.square().sum(), list(parameters.values()))
    for index, network in enumerate(networks):
        expected = network(x[index])
        torch.testing.assert_close(logits[index], expected)
        plain = torch.autograd.grad(expected.square().sum(), list(network.parameters()))
        for ours, each in zip(gradients, plain, strict=True):
            torch.testing.assert_close(ours[index], each, rtol=1e-7, atol=1e-9)
        for key, buffer in network.named_buffers():
            torch.testing.assert_close(buffers[key][index], buffer)


# Initialisation.


def global_states():
    return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("name", SMALL)
def test_generator_draws_what_the_constructors_draw(name):
    before = global_states()
    ours = small(name, 11)
    again = small(name, 3)
    models.reset(again, seeded(11))
    assert global_states() == before
    shape, options = SMALL[name]
    with torch.random.fork_rng():
        torch.manual_seed(11)
        theirs = models.build(name, shape=shape, num_classes=5, **options)
    for one, two, three in zip(ours.parameters(), again.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, three) and torch.equal(two, three)
    assert ours.training and all(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_reset_works_in_place_in_any_memory_format_and_advances_the_generator(memory_format):
    expected, model = small("convnet", 5, norm="batch"), small("convnet", norm="batch").to(memory_format=memory_format)
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    model(images(model))
    assert not torch.equal(model.blocks[0].norm.running_mean, expected.blocks[0].norm.running_mean)
    generator = seeded(5)
    models.reset(model, generator)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert pointers == [parameter.data_ptr() for parameter in model.parameters()]
    assert model.blocks[1].conv.weight.is_contiguous(memory_format=memory_format)
    models.reset(model, generator)
    assert not torch.equal(model.blocks[1].conv.weight, expected.blocks[1].conv.weight)


def test_reset_refuses_what_it_does_not_know():
    model = nn.Sequential(nn.Linear(2, 2), nn.PReLU())
    before = model[0].weight.clone()
    with pytest.raises(TypeError, match=r"no initialisation law for weight of PReLU \(1\); known: conv"):
        models.reset(model, seeded())
    assert torch.equal(model[0].weight, before)
    linear = nn.Linear(2, 2)
    linear.register_buffer("mask", torch.ones(2))
    with pytest.raises(TypeError, match=r"mask of Linear \(the model itself\)"):
        models.reset(linear, seeded())


# Refusals.


test_refusals = refuses(
    lambda name, shape, **options: models.build(name, shape=shape, num_classes=10, **options),
    [
        ("convnext", (3, 32, 32), {}, "unknown network 'convnext'; known: convnet, alexnet"),
        ("convnet", (3, 32, 32), {"widht": 3}, "unknown option 'widht' of network 'convnet'; known: width, depth"),
        ("convnet", (3, 32, 32), {"norm": "weight"}, "unknown norm 'weight'; known: instance, batch, layer"),
        ("convnet", (3, 32, 32), {"activation": "tanh"}, "unknown activation 'tanh'; known: relu, sigmoid"),
        ("convnet", (3, 32, 32), {"pooling": "sum"}, "unknown pooling 'sum'; known: avg, max, none"),
        ("convnet", (3, 32, 32), {"norm": "group", "width": 6}, "multiple of 4, not 6"),
        ("convnet", (3, 32, 32), {"width": 0}, "width 0: at least 1"),
        ("convnet", (3, 32, 32), {"depth": 0}, "depth 0: at least 1"),
        ("convnet", (3, 8, 8), {"depth": 4, "norm": "none"}, r"shape \(3, 8, 8\) is too small for ConvNet"),
        ("vgg11", (3, 16, 16), {}, "more than one pixel"),
        ("resnet18", (3, 32, 32), {"width": 0}, "width 0: at least 1"),
        ("densenet", (3, 32, 32), {"growth": 0}, "growth 0: at least 1"),
        ("vgg11", (3, 32, 32), {"grid": 0}, "grid 0: at least 1"),
        ("resnet18_ap", (3, 7, 7), {"norm": "none"}, "too small: nothing is left of the maps in stage 4"),
        ("densenet", (1, 8, 7), {}, r"shape \(1, 8, 7\) is too small for DenseNet: 8x8 pixels at least"),
        ("resnet18", (3, 32, 32), {"pooling": "max"}, "unknown pooling 'max'; known: 4x4, global"),
        ("vit", (3, 40, 40), {"patch": 16}, r"shape \(3, 40, 40\): height and width must be multiples of patch 16"),
        ("vit", (3, 32, 32), {"patch": 0}, "multiples of patch 0, at least 1"),
        ("mlp", (28, 28), {}, r"shape \(28, 28\): three positive integers"),
    ],
)


def test_refuses_no_classes_and_foreign_images():
    with pytest.raises(ValueError, match="num_classes 0: at least 1"):
        models.build("mlp", shape=(1, 8, 8), num_classes=0)
    model = small("resnet18")
    for wrong in (torch.zeros(2, 3, 32, 32), torch.zeros(3, 16, 16)):
        for call in (model, model.features):
            with pytest.raises(ValueError, match=r"this network was built for \(B, 3, 16, 16\)"):
                call(wrong)


def test_dim_draws_its_resnets_by_fan_out():
    generator = torch.Generator().manual_seed(0)
    network = models.build("resnet18", shape=(3, 32, 32), num_classes=10, width=32, norm="batch", weights="fan_out",
                           generator=generator)  # fmt: skip
    block = network.stages[0][0]
    for module, deviation in ((block.conv1, 0.0833), (network.stages[3][0].shortcut[0], (2 / 256) ** 0.5)):
        assert float(module.weight.detach().std()) == pytest.approx(deviation, rel=0.03)
    before = block.conv1.weight.clone()
    models.reset(network, generator)
    assert not torch.equal(before, block.conv1.weight)
    assert float(block.conv1.weight.detach().std()) == pytest.approx(0.0833, rel=0.03)
    assert float(network.classifier.weight.detach().abs().max()) <= 256**-0.5  # the linear layer keeps PyTorch's law
