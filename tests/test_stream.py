"""Synthetic streams: what they make, what is refused at birth, and the file that holds them."""

import math

import pytest
import torch
from draws import equal, seeded
from refusals import refuses
from scipy import stats

from ddlib.data.synthetic import SyntheticStream, generator_bytes, load, save
from ddlib.data.whitening import ZCA, ValueSpace
from ddlib.models.gan import Generator
from ddlib.models.layers import reset
from ddlib.store.files import read_tensors, write_tensors

SHAPE, NAMES = (1, 8, 8), ("a", "b", "c")
SPACE = ValueSpace((0.3,), (0.25,))


def trained_generator(**changes):
    """A generator with other statistics in its batch norms than fresh ones have."""
    network = Generator(**{"shape": SHAPE, "num_classes": 3, "width": 4, "latent": 10} | changes)
    reset(network, seeded(1))
    network.image.weight.data.mul_(20)
    network.train()
    classes = torch.arange(12) % network.num_classes
    network(torch.randn(12, network.latent, generator=seeded(2)), classes)
    return network.eval()


def make(**changes):
    fields = {
        "generator": {name: tensor.clone() for name, tensor in trained_generator().state_dict().items()},
        "shape": SHAPE,
        "width": 4,
        "latent": 10,
        "class_names": NAMES,
        "space": SPACE,
        "strategy": "color_crop",
        "frozen_strategy": "color_crop_cutout_scale_rotate",
        "ipc": 4,
    }
    return SyntheticStream(**fields | changes)


def test_images_are_those_of_the_generator_in_evaluation_mode_in_the_networks_space():
    stream, labels = make(), torch.tensor([2, 0, 1, 1, 0])
    noise = stream.noise(5, seeded(3))
    assert torch.equal(noise, torch.randn(5, 10, generator=seeded(3)))
    with torch.no_grad():
        expected = ((trained_generator()(noise, labels) + 1) / 2 - 0.3) / 0.25
    found = stream.images(labels, noise)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32 and not found.requires_grad and found.is_contiguous()
    assert expected.std() > 0.1, "images that say nothing"
    rough = stream.images(labels, noise, precision="bfloat16")
    assert rough.dtype == torch.float32 and 0 < (rough - expected).abs().max() < 0.3


def test_labels_come_in_balanced_blocks_in_random_order_or_are_drawn_one_by_one():
    found = make().labels(300, seeded()).view(100, 3)
    assert found.dtype == torch.int64 and torch.equal(found.sort(1).values, torch.arange(3).expand(100, 3))
    assert len({tuple(block) for block in found.tolist()}) == math.factorial(3)
    assert make().labels(4, seeded()).shape == (4,)
    single = make().labels(3000, seeded(), balanced=False)
    assert stats.chisquare(single.bincount()).pvalue > 1e-3
    assert (single.view(-1, 3).sort(1).values != torch.arange(3)).any()


def test_a_frozen_stream_is_a_balanced_set_that_its_seed_decides():
    stream = make(provenance={"method": "dim"})
    found, again, other = stream.frozen(0), stream.frozen(0), stream.frozen(1)
    assert found.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert torch.equal(found.images, again.images) and not torch.equal(found.images, other.images)
    assert found.strategy == stream.frozen_strategy and found.class_names == NAMES and found.space is SPACE
    assert found.provenance == {"method": "dim", "frozen": {"ipc": 4, "seed": 0}}
    assert len(found.images.flatten(1).unique(dim=0)) == 12, "an image stands in it twice"


def test_the_published_generator_takes_the_bytes_that_the_paper_trades_for_images():
    assert generator_bytes(shape=(3, 32, 32), num_classes=10) == 4 * (3_559_363 + 9_016)
    assert generator_bytes(shape=SHAPE, num_classes=3, width=4, latent=10) == make().bytes_stored
    with pytest.raises(ValueError, match="num_classes=60"):
        generator_bytes(shape=(3, 32, 32), num_classes=60)


STATE = trained_generator().state_dict()
ZCA_8 = ZCA(mean=torch.zeros(64), whitening=torch.eye(64), unwhitening=torch.eye(64), eps=0.1)


test_what_is_not_a_stream_is_refused = refuses(
    make,
    [
        ({"generator": {n: t for n, t in STATE.items() if n != "image.bias"}}, "image.bias must be .*, got None"),
        ({"generator": STATE | {"critic": torch.zeros(1)}}, "critic must be None, got .*; None: no such tensor"),
        ({"generator": STATE | {"image.bias": torch.zeros(2)}}, r"image.bias must be .*\[1\].*, got .*\[2\]"),
        ({"generator": STATE | {"image.bias": torch.zeros(1).double()}}, "float32 and finite, got torch.float64"),
        ({"generator": STATE | {"image.bias": torch.zeros(1) / 0}}, "image.bias must be float32 and finite"),
        ({"shape": (1, 9, 9)}, r"shape=\(1, 9, 9\); it must be"),
        ({"class_names": tuple("abcdef")}, "num_classes=6; a one-hot code in noise of 10 values allows at most 5"),
        ({"space": ValueSpace((0.3,), (0.25,), ZCA_8)}, "space is 'zca'; a generator makes pixels"),
        ({"space": ValueSpace((0.3, 0.3), (1, 1))}, "space is for 2 channels, images have 1"),
        ({"strategy": "color_twirl"}, "unknown strategy 'color_twirl'"),
        ({"frozen_strategy": "twirl"}, "unknown strategy 'twirl'"),
        ({"ipc": 0}, "ipc must be an integer of at least 1, got 0"),
        ({"redraw": True}, "redraw must be an integer"),
        ({"redraw": 0}, "redraw must be an integer of at least 1, or None to draw once, got 0"),
        ({"provenance": {"x": torch.zeros(1)}}, "provenance must be plain JSON"),
    ],
)


@pytest.mark.parametrize("redraw", [5, None])
def test_the_file_gives_back_every_bit(tmp_path, redraw):
    stream = make(redraw=redraw, provenance={"method": "dim", "rows": [3, 1]})
    save(stream, tmp_path / "deep" / "stream.safetensors")
    found = load(tmp_path / "deep" / "stream.safetensors")
    assert isinstance(found, SyntheticStream) and equal(found, stream)
    plain = ("shape", "width", "latent", "class_names", "strategy", "frozen_strategy", "ipc", "redraw", "provenance")
    for name in (*plain, "bytes_stored"):
        assert getattr(found, name) == getattr(stream, name)
    assert vars(found.space) == vars(SPACE)


@pytest.fixture
def path(tmp_path):
    save(make(), tmp_path / "stream.safetensors")
    return tmp_path / "stream.safetensors"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 2}, "stream.safetensors cannot be read: format version 2; this ddlib reads up to 1"),
        ({"format": ["x"]}, "holds no synthetic set: its header does not say 'ddlib.synthetic' or 'ddlib.str"),
        ({"width": "4"}, "stream.safetensors cannot be read: "),
        ({"shape": [1, 16, 16]}, "stream.safetensors cannot be read: generator: "),
        ({"conditioning": "embedding"}, "conditioning='embedding'; this ddlib reads generators of 'onehot'"),
    ],
)
def test_a_header_that_cannot_be_is_refused(path, changes, match):
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, header | changes)
    with pytest.raises(ValueError, match=match):
        load(path)
