"""The other end of :mod:`monitor.engines.processes`: one process that does jobs until its caller has no more.

Imports nothing but what it needs for that: each job brings the modules of its function.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from contextlib import suppress
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from threading import Thread

ITEM, DONE, FAILED = range(3)
"""What a message to the caller is: something that a job gave, its end, or what it raised."""


def serve(pipe: Connection) -> None:
    """Jobs, one after the other: (function, job, how many of the first items the caller has) for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the caller ends us
    Thread(target=_end_with_caller, daemon=True).start()
    with suppress(EOFError):
        while True:
            _do(pipe, pipe.recv_bytes())


def _do(pipe: Connection, asked: bytes) -> None:
    try:
        function, job, given = pickle.loads(asked)  # noqa: S301  # from the caller, through a pipe of its own
        for at, item in enumerate(function(job)):
            if at >= given:
                _say(pipe, ITEM, item)
        _say(pipe, DONE)
    except Exception as error:
        _say(pipe, FAILED, _travelling(error))


def _say(pipe: Connection, kind: int, value: object = None) -> None:
    try:
        pipe.send((kind, value))
    except (BrokenPipeError, ConnectionResetError):  # nobody listens any more
        raise SystemExit(1) from None


def _travelling(error: Exception) -> Exception:
    """The error with where it was raised, or its words where it does not come out of a pickle as it went in."""
    error.add_note(f"In process {os.getpid()} of the engine:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # ours
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.__notes__ = error.__notes__
        return told
    return error


def _end_with_caller() -> None:
    """A caller that was killed can end nobody, and its job would go on for hours."""
    caller = parent_process()
    if caller is not None:
        connection.wait([caller.sentinel])
        os._exit(1)
