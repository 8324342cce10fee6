"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_draws():
    """Draws from torch's global generator begin anew in every test, so that a test gives one result in any order."""
    torch.manual_seed(0)
