"""What an accelerator has to show before numbers are computed there: steps, bits, networks at once, transfers.

Runs where CUDA is, and by DDLIB_TEST_DEVICE=cpu anywhere, which shows that the tests themselves are whole.  An id names
the methods that a failure concerns.
"""

import functools
import os
from dataclasses import replace

import few_digits
import pytest
import torch
from draws import equal, held
from few_digits import cut_and_resumed, prerequisites, product

from ddlib import evaluation, methods, seeding
from ddlib.data import datasets, synthetic
from ddlib.methods import unrolling
from ddlib.models import diffusion, passes
from ddlib.pretraining.experts import Experts
from ddlib.store import artefacts

DEVICE = os.environ.get("DDLIB_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no accelerator here"),
]
ROUNDED = [name for name in methods.discover() if "precision" in methods.hyperparameters(methods.find(name))]
ON_A_GPU = {("dc", "bfloat16"), ("dsa", "bfloat16")}
"""What torch cannot do on a CPU: norms in bfloat16 under `vmap` of a gradient."""


def small(name, **more):
    """The method at a size that runs in a moment."""
    if (name, more.get("precision")) in ON_A_GPU and DEVICE == "cpu":
        pytest.skip("torch has no kernel for it on a CPU")
    return few_digits.small(name, **{"ipc": 1, "iterations": 2, "restarts": 2} | more)


@functools.cache
def made_on_the_host(builder, folder):
    """Path of what the builder makes of the digits on the CPU."""
    path = folder / str(hash(builder)) / builder.product
    path.parent.mkdir()
    builder.save(product(builder, datasets.load("digits", "train")), path)
    return path


def changed(method, device, folder, **needs):
    """All tensors of the method after a step, in float64 on the CPU, and its metrics; both devices have equal needs."""
    builders = {} if needs else getattr(method, "needs", {})
    needs |= {name: builder.load(made_on_the_host(builder, folder), device) for name, builder in builders.items()}
    state = method.start(datasets.load("digits", "train", device=device), needs, 0)
    metrics = method.step(state)
    if hasattr(state, "state_dict"):
        metrics = state.state_dict() | dict(metrics)
    return {name: torch.as_tensor(value).double().cpu() for name, value in metrics.items()}


def assert_near(there, host):
    """Moments and velocities, which are gradients, and all else that a step changes."""
    assert host.keys() == there.keys()
    for key, wanted in host.items():
        assert (there[key] - wanted).norm() <= 1e-2 * wanted.norm() + 1e-5, key


@pytest.fixture
def exact():
    """Convolutions in float32 as it is."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where what methods need lies."""
    return tmp_path_factory.mktemp("needs")


STEPS = {name: small(name) for name in methods.discover()}
STEPS |= {"dim-gradients": small("dim", match="gradients"), "dim-gan": small("dim").gan}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_that_of_the_host(name, folder, exact):
    assert_near(changed(STEPS[name], DEVICE, folder), changed(STEPS[name], "cpu", folder))


@pytest.mark.parametrize("name", ["dm"], ids=["compiled"])
def test_a_compiled_step_is_the_plain_one(name, folder):
    assert_near(*(changed(small(name, compiled=compiled), DEVICE, folder) for compiled in (True, False)))


@pytest.mark.parametrize("name", ROUNDED)
def test_a_step_in_bfloat16_is_near_that_in_float32(name, folder):
    wanted, rounded = (changed(small(name, precision=p), DEVICE, folder) for p in ("float32", "bfloat16"))
    for key in wanted.keys() & {"loss", "match"}:
        torch.testing.assert_close(rounded[key], wanted[key], rtol=0.1, atol=1e-3)


def test_networks_trained_together_are_those_trained_one_by_one(exact):
    test, train = (datasets.load("digits", split, device=DEVICE) for split in ("test", "train"))
    protocol = evaluation.Protocol(options={"width": 8, "depth": 2}, num_networks=5, epochs=4)
    distilled = few_digits.distilled(small("random"), train)
    alone, together = (evaluation.evaluate(distilled, test, replace(protocol, at_once=n), seed=0) for n in (1, 5))
    assert together.train_losses == pytest.approx(alone.train_losses, rel=1e-3)
    assert together.accuracies == pytest.approx(alone.accuracies, abs=0.5)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"], ids="{}-mtt-tesla-ftd-datm".format)
def test_experts_trained_together_are_those_trained_one_by_one(optimizer, exact):
    train = datasets.load("digits", "train", device=DEVICE)
    shared = {"count": 3, "epochs": 1, "kept": 1, "width": 8, "depth": 2, "optimizer": optimizer}
    alone, together = (product(Experts(**shared, at_once=n), train)["vectors"] for n in (1, 3))
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
    distilled = few_digits.distilled(small(name, precision=precision), train)
    for tensor in held(distilled).values():
        assert tensor.device.type == DEVICE and torch.isfinite(tensor).all()
    synthetic.save(distilled, tmp_path / "set.safetensors")
    protocol = evaluation.Protocol(options={"width": 8, "depth": 2}, num_networks=3, epochs=2, precision=precision)
    if isinstance(distilled, synthetic.SyntheticStream):
        protocol = replace(protocol, batch_size=10)  # which divides its epoch
    found = evaluation.evaluate(synthetic.load(tmp_path / "set.safetensors"), test, protocol, seed=0)
    assert len(found.accuracies) == 3


@pytest.mark.parametrize("options", [{}, {"checkpointed": True, "backprop_steps": 1}, {"residual": "eq7"}])
@pytest.mark.parametrize("matching", ["dm", "dc"])
def test_a_step_of_ld3m_is_that_of_the_host(matching, options, folder, exact):
    """With one prior, whose codes are spread so far that no rounding changes which is nearest."""
    prior = diffusion.small((1, 16, 16), 10, width=16, codes=4, generator=seeding.generator(3))
    with torch.no_grad():
        prior.vae.quantize.embedding.weight.mul_(100)
    method = small("ld3m", matching=matching, strategy="none", **options)
    there, host = (changed(method, device, folder, prior=prior) for device in (DEVICE, "cpu"))
    for name in ("loss", "first.Z", "first.c"):
        assert (there[name] - host[name]).norm() <= 1e-2 * host[name].norm() + 1e-6, name


@pytest.mark.parametrize(
    "compiled", [pytest.param(False, id="mtt-ftd-datm"), pytest.param(True, id="compiled", marks=pytest.mark.slow)]
)
def test_the_adjoint_is_the_gradient_of_the_unrolled_loop_there(compiled, exact):
    network = passes.pure("convnet", {"width": 64, "activation": "swish"}, shape=(3, 32, 32), num_classes=10)
    plain, student = unrolling.student(network), unrolling.student(network, compiled)
    stream = seeding.generator(0)
    start, way = (0.05 * torch.randn(network.flat.size, generator=stream).to(DEVICE) for _ in range(2))
    images, targets = (torch.randn(40, *shape, generator=stream).to(DEVICE) for shape in ((3, 32, 32), (10,)))
    batches = [unrolling.MiniBatch(torch.randperm(40, generator=stream)[:15].to(DEVICE)) for _ in range(8)]
    given = {"images": images, "targets": targets.softmax(1), "lr": torch.tensor(0.02).to(DEVICE), "batches": batches}
    wanted = unrolling.unrolled(plain, start, start + way, **given)
    found = unrolling.adjoint(student, start, start + way, **given)
    for name in ("loss", "images", "targets", "lr"):
        error = (getattr(found, name) - getattr(wanted, name)).norm() / getattr(wanted, name).norm()
        assert error < 1e-3, name


@pytest.mark.parametrize("name", ["atom", "datm", "dim", "dm", "dsa", "glad", "ld3m"])
def test_work_that_is_cut_comes_to_the_same_bits_there(name, tmp_path):
    train, method = datasets.load("digits", "train", device=DEVICE), small(name, iterations=3, restarts=3, width=64)
    needs = prerequisites(method, train)
    with artefacts.deterministic():
        whole = few_digits.distilled(method, train)
        assert equal(cut_and_resumed(method, train, needs, tmp_path), whole)
