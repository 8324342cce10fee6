"""SIGINT and SIGTERM, held back until a step is over and its state is saved."""

import signal
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C and JupyterLab's stop button; what schedulers and `kill` send first."""

AT_ONCE = 2.0
"""Seconds within which a second signal is the first one again: schedulers and terminals often send it twice."""


class Deferred:
    """Inside the block the first signal waits in `pending`; one that comes `AT_ONCE` later takes its effect at once.

    `deliver` lets the signal have the effect that it had outside: KeyboardInterrupt, the end of the process, or
    whatever handler there is.  One that nobody delivered takes effect when the block is left.  Signals that are ignored
    stay ignored.  Outside of the main thread nothing is held back, since Python allows no handlers there.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._before: dict[int, object] = {}
        self._since = 0.0

    def __enter__(self) -> "Deferred":
        if threading.current_thread() is threading.main_thread():
            usual = {number: signal.getsignal(number) for number in SIGNALS}
            self._before = {n: handler for n, handler in usual.items() if handler not in (None, signal.SIG_IGN)}
            self._install()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        if self.pending is not None:
            signal.raise_signal(self.pending)

    def deliver(self) -> None:
        """Give the pending signal its effect; returns if its handler does, ready for the next one."""
        number, self.pending = self.pending, None
        self._restore()
        signal.raise_signal(number)
        self._install()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.pending is None:
            self.pending, self._since = number, time.monotonic()
        elif time.monotonic() - self._since >= AT_ONCE:
            self.pending = None
            self._restore()
            signal.raise_signal(number)

    def _install(self) -> None:
        for number in self._before:
            signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
