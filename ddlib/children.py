"""Child processes that are stopped as a person would stop them: with SIGINT, all that they have started too."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(words: Sequence[str], **options: Any) -> int:
    """Run a command, wait for its end, and return its exit code.

    SIGINT and SIGTERM to this process reach the child and all that it has started as SIGINT, upon which work is saved
    and jobs are cancelled.  A terminal's Ctrl-C, which has reached them by itself, is not sent again.

    Args:
        words: of the command.
        options: of `subprocess.Popen`.

    Raises:
        KeyboardInterrupt: it was stopped; the child has ended.
    """
    begun: list[psutil.Popen] = []
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        if number == signal.SIGINT and _of_the_terminal():
            return
        for child in begun:
            for process in (*child.children(recursive=True), child):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)

    with _handled(stop):  # begun inside: a command in a script's background would else inherit that SIGINT is ignored
        begun.append(psutil.Popen(words, **options))
        code = begun[0].wait()
    if stopped:
        raise KeyboardInterrupt
    return code


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
