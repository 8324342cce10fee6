"""What an accelerator has to show before numbers are computed there: steps, bits, networks at once, transfers.

Runs where CUDA is, and by DDLIB_TEST_DEVICE=cpu anywhere, which shows that the tests themselves are whole.  An id names
the methods that a failure concerns.
"""

import dataclasses
import functools
import os

import pytest
import torch

from ddlib import evaluation, methods, seeding
from ddlib.data import datasets, synthetic
from ddlib.methods import unrolling
from ddlib.models import diffusion, passes
from ddlib.pretraining.experts import Experts
from ddlib.store import artefacts, loop
from ddlib.store.loop import Checkpoint

DEVICE = os.environ.get("DDLIB_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no accelerator here"),
]
SMALL = {"width": 8, "depth": 2, "batch_real": 6, "iterations": 2, "restarts": 2, "epochs": 1}
SMALL |= {"experts": 2, "expert_training": 2, "expert_epochs": 1, "max_start_epoch": 1, "syn_steps": 3, "init": "real"}
SMALL |= {"initial_max_start_epoch": None, "expansion_end": None}
SMALL |= {"generator_width": 8, "latent": 20, "gan_iterations": 3, "gan_batch": 6, "batch_size": 6, "inner_steps": 2}
SMALL |= {"pool": ["convnet", "resnet10"], "pool_width": 4, "refresh": 2}
SMALL |= {"prior": {"autoencoder_steps": 2, "diffusion_steps": 2, "batch_size": 8, "width": 16}, "steps": 2}
UNLIKE = {"ld3m": {"init": "encoded"}, "glad": {"init": "encoded"}}
ROUNDED = [name for name in methods.discover() if "precision" in methods.hyperparameters(methods.find(name))]
ON_A_GPU = {("dc", "bfloat16"), ("dsa", "bfloat16")}
"""What torch cannot do on a CPU: norms in bfloat16 under `vmap` of a gradient."""


def small(name, **more):
    """The method at a size that runs in a moment."""
    if (name, more.get("precision")) in ON_A_GPU and DEVICE == "cpu":
        pytest.skip("torch has no kernel for it on a CPU")
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


@functools.cache
def made_on_the_host(builder, folder):
    """Path of what the builder makes of the digits on the CPU."""
    path = folder / str(hash(builder)) / builder.product
    path.parent.mkdir()
    train = datasets.load("digits", "train")
    builder.save(loop.run(builder, builder.start(train, {}, builder.seed)).product, path)
    return path


def changed(method, device, folder):
    """All tensors of the method after a step, in float64 on the CPU, and its metrics; both devices have equal needs."""
    needs = {name: builder.load(made_on_the_host(builder, folder), device) for name, builder in method.needs.items()}
    state = method.start(datasets.load("digits", "train", device=device), needs, 0)
    metrics = method.step(state)
    if hasattr(state, "state_dict"):
        metrics = state.state_dict() | dict(metrics)
    return {name: torch.as_tensor(value).double().cpu() for name, value in metrics.items()}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where what methods need lies."""
    return tmp_path_factory.mktemp("needs")


@pytest.mark.parametrize("name", list(methods.discover()))
def test_a_step_is_that_of_the_host(name, folder):
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        host, there = (changed(small(name), device, folder) for device in ("cpu", DEVICE))
    assert host.keys() == there.keys()
    for key, wanted in host.items():  # moments and velocities among them, which are gradients
        assert (there[key] - wanted).norm() <= 1e-2 * wanted.norm() + 1e-5, key


@pytest.mark.parametrize("name", ["dm"], ids=["compiled"])
def test_a_compiled_step_is_the_plain_one(name, folder):
    plain, compiled = (changed(small(name, compiled=c), DEVICE, folder) for c in (False, True))
    for key, wanted in plain.items():
        assert (compiled[key] - wanted).norm() <= 1e-2 * wanted.norm() + 1e-5, key


@pytest.mark.parametrize("name", ROUNDED)
def test_a_step_in_bfloat16_is_near_that_in_float32(name, folder):
    wanted, rounded = (changed(small(name, precision=p), DEVICE, folder) for p in ("float32", "bfloat16"))
    for key in wanted.keys() & {"loss", "match"}:
        torch.testing.assert_close(rounded[key], wanted[key], rtol=0.1, atol=1e-3)


def test_networks_trained_together_are_those_trained_one_by_one():
    test, train = (datasets.load("digits", split, device=DEVICE) for split in ("test", "train"))
    distilled = loop.run(method := small("random"), method.start(train, {}, 0)).product
    protocol = evaluation.Protocol(options={"width": 8, "depth": 2}, num_networks=5, epochs=4)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        alone, together = (
            evaluation.evaluate(distilled, test, dataclasses.replace(protocol, at_once=n), seed=0) for n in (1, 5)
        )
    assert together.train_losses == pytest.approx(alone.train_losses, rel=1e-3)
    assert together.accuracies == pytest.approx(alone.accuracies, abs=0.5)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"], ids="{}-mtt-tesla-ftd-datm".format)
def test_experts_trained_together_are_those_trained_one_by_one(optimizer):
    train = datasets.load("digits", "train", device=DEVICE)
    shared = {"count": 3, "epochs": 1, "kept": 1, "width": 8, "depth": 2, "optimizer": optimizer}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        alone, together = (
            loop.run(builder := Experts(**shared, at_once=n), builder.start(train, {}, 0)).product["vectors"]
            for n in (1, 3)
        )
    moved = (alone[:, -1] - alone[:, 0]).norm()
    assert moved > 0 and (together - alone).norm() <= 1e-2 * moved


def test_what_is_drawn_on_the_host_arrives_through_pinned_memory_as_it_was():
    values = torch.arange(1000.0)
    sent = (values.pin_memory() if DEVICE == "cuda" else values).to(DEVICE, non_blocking=True)
    assert torch.equal(sent.cpu(), values)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(methods.discover()))
def test_every_method_distils_there_and_is_evaluated(name, precision, tmp_path):
    train, test = (datasets.load("digits", split, device=DEVICE) for split in ("train", "test"))
    method = small(name, precision=precision)
    product = loop.run(method, method.start(train, made(method, train), 0)).product
    for tensor in tensors(product).values():
        assert tensor.device.type == DEVICE and torch.isfinite(tensor).all()
    synthetic.save(product, tmp_path / "set.safetensors")
    protocol = evaluation.Protocol(options={"width": 8, "depth": 2}, num_networks=3, epochs=2, precision=precision)
    if isinstance(product, synthetic.SyntheticStream):
        protocol = dataclasses.replace(protocol, batch_size=10)  # which divides its epoch
    found = evaluation.evaluate(synthetic.load(tmp_path / "set.safetensors"), test, protocol, seed=0)
    assert len(found.accuracies) == 3


@pytest.mark.parametrize("options", [{}, {"checkpointed": True, "backprop_steps": 1}, {"residual": "eq7"}])
@pytest.mark.parametrize("matching", ["dm", "dc"])
def test_a_step_of_ld3m_is_that_of_the_host(matching, options):
    """With one prior, whose codes are spread so far that no rounding changes which is nearest."""
    method, found = small("ld3m", matching=matching, strategy="none", **options), {}
    prior = diffusion.small((1, 16, 16), 10, width=16, codes=4, generator=seeding.generator(3))
    with torch.no_grad():
        prior.vae.quantize.embedding.weight.mul_(100)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", DEVICE):
            state = method.start(datasets.load("digits", "train", device=device), {"prior": prior}, 0)
            metrics = method.step(state)
            found[device] = {name: tensor.cpu() for name, tensor in state.first.items()}
            found[device]["loss"] = torch.as_tensor(float(metrics["loss"]))
    for name, wanted in found["cpu"].items():
        assert (found[DEVICE][name] - wanted).norm() <= 1e-2 * wanted.norm() + 1e-6, name


@pytest.mark.parametrize("match", ["log_probabilities", "gradients"])
def test_both_stages_of_dim_take_the_steps_of_the_host(match):
    method, found = small("dim", match=match, iterations=1, gan_iterations=1), {}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", DEVICE):
            train = datasets.load("digits", "train", device=device)
            gan = made(method, train)["gan"]
            state = method.start(train, {"gan": gan}, 0)
            metrics = method.step(state)
            found[device] = {f"gan.{name}": t.cpu() for name, t in gan.items() if "exp_avg" in name}
            found[device] |= {name: value.cpu() for name, value in metrics.items()}
    for name, wanted in found["cpu"].items():  # the first moments are gradients
        assert (found[DEVICE][name] - wanted).norm() <= 1e-2 * wanted.norm() + 1e-5, name


@pytest.mark.parametrize(
    "compiled", [pytest.param(False, id="mtt-ftd-datm"), pytest.param(True, id="compiled", marks=pytest.mark.slow)]
)
def test_the_adjoint_is_the_gradient_of_the_unrolled_loop_there(compiled):
    network = passes.pure("convnet", {"width": 64, "activation": "swish"}, shape=(3, 32, 32), num_classes=10)
    plain, student = unrolling.student(network), unrolling.student(network, compiled)
    stream = seeding.generator(0)
    start, way = (0.05 * torch.randn(network.flat.size, generator=stream).to(DEVICE) for _ in range(2))
    images, targets = (
        torch.randn(40, 3, 32, 32, generator=stream).to(DEVICE),
        torch.randn(40, 10, generator=stream).to(DEVICE),
    )
    batches = [unrolling.MiniBatch(torch.randperm(40, generator=stream)[:15].to(DEVICE)) for _ in range(8)]
    given = {"images": images, "targets": targets.softmax(1), "lr": torch.tensor(0.02).to(DEVICE), "batches": batches}
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
    train, method = datasets.load("digits", "train", device=DEVICE), small(name, iterations=5, restarts=5, width=64)
    path, needs = tmp_path / "checkpoint.safetensors", made(method, train)
    with artefacts.deterministic():
        whole = tensors(loop.run(method, method.start(train, needs, 0)).product)
        with pytest.raises(RuntimeError, match="cut"):
            loop.run(method, method.start(train, needs, 0), checkpoint=Checkpoint(path, 0), report=Cut())
        resumed = loop.run(method, method.start(train, needs, 0), checkpoint=Checkpoint(path, 0)).product
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors(resumed).items())
