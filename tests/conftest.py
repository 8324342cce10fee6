"""What all tests share."""

import pytest
import torch


def pytest_configure(config):
    """A kernel that dies at once is started again: the port chosen for it may be taken before it is bound."""
    if not config.pluginmanager.hasplugin("nbval"):
        return
    from nbval import kernel

    start = kernel.start_new_kernel

    def start_again(*arguments, **options):
        try:
            return start(*arguments, **options)
        except RuntimeError:
            return start(*arguments, **options)

    kernel.start_new_kernel = start_again


@pytest.fixture(autouse=True)
def same_draws():
    """Draws from torch's global generator begin anew in every test, so that a test gives one result in any order."""
    torch.manual_seed(0)


@pytest.fixture
def double(monkeypatch):
    """Everything in float64: weights, noise, and the images of GANs and priors."""
    from ddlib.pretraining import gan, prior

    monkeypatch.setattr(gan, "signed", lambda train, rows: train.images[rows].double() / 255 * 2 - 1)
    monkeypatch.setattr(prior, "signed", lambda pixels: pixels.double() / 255 * 2 - 1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def workplace(tmp_path):
    """A store of its own, with a checkpoint after each step."""
    from ddlib import study

    return study.Workplace("cpu", folder=tmp_path / "runs", progress="none", checkpoint_seconds=0)


@pytest.fixture(scope="session")
def train():
    """The real training images of digits."""
    from ddlib.data import datasets

    return datasets.load("digits", "train")


@pytest.fixture(scope="session")
def test():
    """The real test images of digits."""
    from ddlib.data import datasets

    return datasets.load("digits", "test")
