"""What can only be checked on an accelerator: every method takes steps there, and networks are trained together."""

import pytest
import torch

from ddlib import datasets, evaluate, loop, methods, pieces, synthetic
from ddlib.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator here"),
]
SMALL = {"width": 8, "depth": 2, "batch_real": 6, "iterations": 2, "restarts": 2, "epochs": 1}


def small(name, **more):
    """The method at a size that runs in a moment."""
    known = methods.hyperparameters(methods.find(name))
    return methods.build(name, ipc=1, **{key: value for key, value in (SMALL | more).items() if key in known})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(methods.discover()))
def test_every_method_distils_there_and_is_evaluated(name, precision, tmp_path):
    train, test = (datasets.load("digits", split, device="cuda") for split in ("train", "test"))
    method = small(name, precision=precision)
    needs = {
        key: loop.run(builder, builder.start(train, {}, builder.seed)).product for key, builder in method.needs.items()
    }
    product = loop.run(method, method.start(train, needs, 0)).product
    assert product.images.is_cuda and torch.isfinite(product.images).all()
    synthetic.save(product, tmp_path / "set.safetensors")
    protocol = evaluate.Protocol(options={"width": 8, "depth": 2}, num_networks=3, epochs=2, precision=precision)
    found = evaluate.evaluate(synthetic.load(tmp_path / "set.safetensors"), test, protocol, seed=0)
    assert len(found.accuracies) == 3


def test_the_first_step_is_that_of_the_host():
    method = small("dm", iterations=1)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        host, there = (
            loop.run(method, method.start(datasets.load("digits", "train", device=device), {}, 0)).product.images.cpu()
            for device in ("cpu", "cuda")
        )
    torch.testing.assert_close(host, there, rtol=1e-3, atol=1e-3)


class Cut:
    """A report that ends the work after its second step."""

    def __call__(self, step, loss):
        if step == 2:
            raise RuntimeError("cut")

    def note(self, text):
        """Nothing is kept."""


@pytest.mark.parametrize("name", ["atom", "dm", "dsa"])
def test_work_that_is_cut_comes_to_the_same_bits_there(name, tmp_path):
    train, method = datasets.load("digits", "train", device="cuda"), small(name, iterations=5, restarts=5, width=64)
    path = tmp_path / "checkpoint.safetensors"
    with pieces.deterministic():
        whole = loop.run(method, method.start(train, {}, 0)).product.images
        with pytest.raises(RuntimeError, match="cut"):
            loop.run(method, method.start(train, {}, 0), checkpoint=Checkpoint(path, 0), report=Cut())
        resumed = loop.run(method, method.start(train, {}, 0), checkpoint=Checkpoint(path, 0)).product.images
    assert torch.equal(whole, resumed)
