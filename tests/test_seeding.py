"""Streams are independent, repeatable, and leave the global state alone."""

import random

import numpy as np
import torch

from ddlib import seeding


def test_streams_depend_on_seed_and_on_every_name():
    names = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, "a", 1)]
    streams = {seeding.derive(*each) for each in names}
    assert len(streams) == 7 and all(0 <= value < 2**63 for value in streams)


def test_a_stream_is_the_same_in_every_process():
    assert seeding.derive(0, "a") == 739273521946992771


def test_generators_of_one_name_agree_and_do_not_touch_the_global_one():
    before = torch.random.get_rng_state()
    first, second = (torch.rand(3, generator=seeding.generator(5, "x", 2)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.random.get_rng_state())


def test_scoped_seeds_everything_and_restores_it_even_after_an_error():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()
    draws = []
    for _ in range(2):
        try:
            with seeding.scoped(3, "block"):
                draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
                raise KeyError
        except KeyError:
            pass
    assert draws[0] == draws[1]
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.random.get_rng_state(), before[2])
