"""How a job's end becomes the exit code of the command that waited for it."""

from __future__ import annotations

from contextlib import contextmanager

from gpuq.errors import GpuqError, WaitTimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuq.cli.render import Job


class LostSight(GpuqError):
    """gpuq itself failed while it waited for a job; no code that a job would be thought to have."""

    exit_code = 125


@contextmanager
def own_failures() -> Iterator[None]:
    try:
        yield
    except WaitTimedOut:
        raise
    except GpuqError as error:
        raise LostSight(str(error)) from None


def exit_code(job: Job) -> int:
    """What the job gives to the shell. Loaded late: after a job's end nobody counts milliseconds."""
    from gpuq.core.ends.codes import shell_code

    return shell_code(job["outcome"], job["exit_code"], job["signal"])
