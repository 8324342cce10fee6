"""What can only be checked on an accelerator: every method takes steps there, and networks are trained together."""

import dataclasses

import pytest
import torch

from ddlib import evaluation, methods, seeding
from ddlib.data import datasets, synthetic
from ddlib.methods import unrolling
from ddlib.models import diffusion, passes
from ddlib.store import artefacts, loop
from ddlib.store.loop import Checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator here"),
]
SMALL = {"width": 8, "depth": 2, "batch_real": 6, "iterations": 2, "restarts": 2, "epochs": 1}
SMALL |= {"experts": 2, "expert_training": 2, "expert_epochs": 1, "max_start_epoch": 1, "syn_steps": 3, "init": "real"}
SMALL |= {"initial_max_start_epoch": None, "expansion_end": None}
SMALL |= {"generator_width": 8, "latent": 20, "gan_iterations": 3, "gan_batch": 6, "batch_size": 6, "inner_steps": 2}
SMALL |= {"pool": ["convnet", "resnet10"], "pool_width": 4, "refresh": 2}
SMALL |= {"prior": {"autoencoder_steps": 2, "diffusion_steps": 2, "batch_size": 8, "width": 16}, "steps": 2}
UNLIKE = {"ld3m": {"init": "encoded"}, "glad": {"init": "encoded"}}


def small(name, **more):
    """The method at a size that runs in a moment."""
    known = methods.hyperparameters(methods.find(name))
    told = SMALL | UNLIKE.get(name, {}) | {"ipc": 1} | more
    return methods.build(name, **{key: value for key, value in told.items() if key in known})


def made(method, train):
    """What the method needs beforehand."""
    return {
        key: loop.run(builder, builder.start(train, {}, builder.seed)).product for key, builder in method.needs.items()
    }


def tensors(product):
    """What is distilled: the images of a set, or the weights of a generator."""
    return dict(product.generator) if isinstance(product, synthetic.SyntheticStream) else {"images": product.images}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(methods.discover()))
def test_every_method_distils_there_and_is_evaluated(name, precision, tmp_path):
    train, test = (datasets.load("digits", split, device="cuda") for split in ("train", "test"))
    method = small(name, precision=precision)
    product = loop.run(method, method.start(train, made(method, train), 0)).product
    for tensor in tensors(product).values():
        assert tensor.is_cuda and torch.isfinite(tensor).all()
    synthetic.save(product, tmp_path / "set.safetensors")
    protocol = evaluation.Protocol(options={"width": 8, "depth": 2}, num_networks=3, epochs=2, precision=precision)
    if isinstance(product, synthetic.SyntheticStream):
        protocol = dataclasses.replace(protocol, batch_size=10)  # which divides its epoch
    found = evaluation.evaluate(synthetic.load(tmp_path / "set.safetensors"), test, protocol, seed=0)
    assert len(found.accuracies) == 3


def test_the_first_step_is_that_of_the_host():
    method = small("dm", iterations=1)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        host, there = (
            loop.run(method, method.start(datasets.load("digits", "train", device=device), {}, 0)).product.images.cpu()
            for device in ("cpu", "cuda")
        )
    torch.testing.assert_close(host, there, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"checkpointed": True, "backprop_steps": 1}, {"residual": "eq7"}])
@pytest.mark.parametrize("matching", ["dm", "dc"])
def test_a_step_of_ld3m_is_that_of_the_host(matching, options):
    """With one prior, whose codes are spread so far that no rounding changes which is nearest."""
    method, found = small("ld3m", matching=matching, strategy="none", **options), {}
    prior = diffusion.small((1, 16, 16), 10, width=16, codes=4, generator=seeding.generator(3))
    with torch.no_grad():
        prior.vae.quantize.embedding.weight.mul_(100)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", "cuda"):
            state = method.start(datasets.load("digits", "train", device=device), {"prior": prior}, 0)
            metrics = method.step(state)
            found[device] = {name: tensor.cpu() for name, tensor in state.first.items()}
            found[device]["loss"] = torch.as_tensor(float(metrics["loss"]))
    for name, wanted in found["cpu"].items():
        assert (found["cuda"][name] - wanted).norm() <= 1e-2 * wanted.norm() + 1e-6, name


@pytest.mark.parametrize("match", ["log_probabilities", "gradients"])
def test_both_stages_of_dim_take_the_steps_of_the_host(match):
    method, found = small("dim", match=match, iterations=1, gan_iterations=1), {}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", "cuda"):
            train = datasets.load("digits", "train", device=device)
            gan = made(method, train)["gan"]
            state = method.start(train, {"gan": gan}, 0)
            metrics = method.step(state)
            found[device] = {f"gan.{name}": t.cpu() for name, t in gan.items() if "exp_avg" in name}
            found[device] |= {name: value.cpu() for name, value in metrics.items()}
    for name, wanted in found["cpu"].items():  # the first moments are gradients
        assert (found["cuda"][name] - wanted).norm() <= 1e-2 * wanted.norm() + 1e-5, name


@pytest.mark.parametrize("compiled", [False, True])
def test_the_adjoint_is_the_gradient_of_the_unrolled_loop_there(compiled):
    network = passes.pure("convnet", {"width": 64}, shape=(3, 32, 32), num_classes=10)
    plain, student = unrolling.student(network), unrolling.student(network, compiled)
    stream = seeding.generator(0)
    start, way = (0.05 * torch.randn(network.flat.size, generator=stream).cuda() for _ in range(2))
    images, targets = torch.randn(40, 3, 32, 32, generator=stream).cuda(), torch.randn(40, 10, generator=stream).cuda()
    batches = [unrolling.MiniBatch(torch.randperm(40, generator=stream)[:15].cuda()) for _ in range(8)]
    given = {"images": images, "targets": targets.softmax(1), "lr": torch.tensor(0.02).cuda(), "batches": batches}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        wanted = unrolling.unrolled(plain, start, start + way, **given)
        found = unrolling.adjoint(student, start, start + way, **given)
    for name in ("loss", "images", "targets", "lr"):
        error = (getattr(found, name) - getattr(wanted, name)).norm() / getattr(wanted, name).norm()
        assert error < 1e-3, name


class Cut:
    """A report that ends the work after its second step."""

    def __call__(self, step, loss):
        if step == 2:
            raise RuntimeError("cut")

    def note(self, text):
        """Nothing is kept."""


@pytest.mark.parametrize("name", ["atom", "datm", "dim", "dm", "dsa", "glad", "ld3m"])
def test_work_that_is_cut_comes_to_the_same_bits_there(name, tmp_path):
    train, method = datasets.load("digits", "train", device="cuda"), small(name, iterations=5, restarts=5, width=64)
    path, needs = tmp_path / "checkpoint.safetensors", made(method, train)
    with artefacts.deterministic():
        whole = tensors(loop.run(method, method.start(train, needs, 0)).product)
        with pytest.raises(RuntimeError, match="cut"):
            loop.run(method, method.start(train, needs, 0), checkpoint=Checkpoint(path, 0), report=Cut())
        resumed = loop.run(method, method.start(train, needs, 0), checkpoint=Checkpoint(path, 0)).product
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors(resumed).items())
