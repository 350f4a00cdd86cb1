"""The command `gpuq`: carries out one command line, and says in one line what goes wrong.

Started anew for every question that a person or a script has, so what is imported here is paid for
every time: no library but a part of Python's own, and the rest by the command that needs it.
"""

import os
import sys

from gpuq.cli import console, quick
from gpuq.errors import GpuqError

INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell sees of a program that SIGPIPE ended


def main() -> None:
    code = run(sys.argv[1:])
    if quick.is_alone():
        _leave_at_once(code)
    sys.exit(code)


def run(words: list[str]) -> int:
    """Carries out one command line and returns the exit code."""
    _write_anything()
    try:
        code = _carry_out(words)
        sys.stdout.flush()
        return code
    except GpuqError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_pipe()
    except OSError as error:
        return _complain(f"{error.filename or 'writing'}: {error.strerror}", GpuqError.exit_code)


def _carry_out(words: list[str]) -> int:
    try:
        code = quick.carry_out(words)
        if code is None:
            from gpuq.cli.app import carry_out

            code = carry_out(words)
        return code
    except console.Leave as leave:
        return leave.exit_code


def _leave_at_once(code: int) -> None:
    """To take the interpreter apart costs a fifth of what it cost to start it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # for Python to tell of
    os._exit(code)


def _write_anything() -> None:
    """No byte of a job's name or command may end in a UnicodeEncodeError."""
    if sys.stdout is None:  # `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as we live
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as we live
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _complain(message: str, code: int) -> int:
    from gpuq.cli.render import printable

    try:
        sys.stdout.flush()
    except OSError:
        _leave_pipe()
    sys.stderr.write(f"gpuq: {printable(' '.join(message.split()))}\n")
    return code


def _leave_pipe() -> int:
    """The reader is gone; neither may Python's own flush at exit complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED
