"""Tests of what is refused, a case each."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest


def refuses(build: Callable, cases: Sequence[tuple], error: type[Exception] = ValueError) -> Callable[[Any], None]:
    """A test that `build` raises the error in each of the cases, by whose messages they are called.

    A case is the arguments of `build`, the last of which may be a mapping of its keywords, and what the message says.
    """

    @pytest.mark.parametrize("case", cases, ids=[case[-1] for case in cases])
    def test(case):
        *given, match = case
        named = given.pop() if isinstance(given[-1], dict) else {}
        with pytest.raises(error, match=match):
            build(*given, **named)

    return test
