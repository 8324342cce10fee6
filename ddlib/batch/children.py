"""Child processes that are stopped as a person would stop them: with SIGINT, all that they have started too."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)

POLL = 0.2
"""Seconds after which it is looked again which children have ended."""


def run(words: Sequence[str], **options: Any) -> int:
    """Run a command, wait for its end, and return its exit code; signals are passed on as by `run_all`.

    Args:
        words: of the command.
        options: of `subprocess.Popen`.

    Raises:
        KeyboardInterrupt: it was stopped; the child has ended.
    """
    return run_all([lambda: psutil.Popen(words, **options)])[0][0]


def run_all(starts: Sequence[Callable[[], psutil.Popen]], *, at_once: int = 1) -> list[tuple[int, float]]:
    """Run child processes, at most `at_once` at a time, and wait for all of them.

    SIGINT and SIGTERM to this process reach the children and all that they have started as SIGINT, upon which work is
    saved and jobs are cancelled; no further child is begun.  A terminal's Ctrl-C, which has reached them by itself, is
    not sent again.

    Args:
        starts: each begins one child; called in their order, in this thread.
        at_once: >= 1.

    Returns:
        Exit code and seconds of each.

    Raises:
        KeyboardInterrupt: they were stopped; all that were begun have ended.
    """
    running: dict[psutil.Popen, tuple[int, float]] = {}
    ended: dict[int, tuple[int, float]] = {}
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        if number == signal.SIGINT and _of_the_terminal():
            return
        for child in running:
            _interrupt(child)

    with _handled(stop):  # begun inside: a command in a script's background would else inherit that SIGINT is ignored
        waiting = iter(enumerate(starts))
        while len(ended) < len(starts) and not (stopped and not running):
            for position, start in islice(waiting, 0 if stopped else at_once - len(running)):
                begin = time.perf_counter()
                running[start()] = position, begin
            for child in psutil.wait_procs([*running], timeout=POLL)[0]:
                position, begin = running.pop(child)
                ended[position] = child.returncode, time.perf_counter() - begin
    if stopped:
        raise KeyboardInterrupt
    return [ended[position] for position in range(len(starts))]


def _interrupt(child: psutil.Popen) -> None:
    """Send SIGINT to a child and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (*child.children(recursive=True), child):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """The handler for `SIGNALS` inside the block; elsewhere than in the main thread, where Python has none, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


def _of_the_terminal() -> bool:
    """Whether this process stands in the foreground of a terminal, whose Ctrl-C reaches the whole group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
