"""When a job that waits is expected to start, in words. `~` stands before every such moment."""

import time

from gpuq.cli.render import Job, printable
from gpuq.core.units import count, format_seconds

WEEK_S = 6 * 86400.0


def starts_at(job: Job, now: float) -> str | None:
    """ "~14:20", "~Tue 14:20", "~2026-12-03 14:20"; None where nobody knows."""
    at = job.get("expected_start")
    if at is None or job["state"] != "queued":
        return None
    return f"~{clock_at(max(at, now), now)}"


def clock_at(at: float, now: float) -> str:
    """ "14:20", "Tue 14:20", "2026-12-03 14:20", as near as it is."""
    moment, today = time.localtime(at), time.localtime(now)
    if moment[:3] == today[:3]:
        return time.strftime("%H:%M", moment)
    return time.strftime("%a %H:%M" if at - now < WEEK_S else "%Y-%m-%d %H:%M", moment)


def expected_start(job: Job, now: float) -> str | None:
    """ "~14:20 (by the time limits of 181, 182)", "unknown: 181 has no time limit"."""
    rests_on = job.get("expected_start_from")
    at = starts_at(job, now)
    if at is not None:
        return f"{at} ({printable(rests_on)})" if rests_on else at
    return f"unknown: {printable(rests_on)}" if rests_on else None


def sentence(job: Job, now: float) -> str | None:
    """The same as a sentence of its own."""
    at = starts_at(job, now)
    rests_on = job.get("expected_start_from")
    if at is not None:
        return f"It is expected to start at {expected_start(job, now)}."
    return f"Nobody can say when it will start: {printable(rests_on)}." if rests_on else None


def runs_about(job: Job) -> str | None:
    """ "about 12:00 (learned from 3 runs)" of a job that has no time limit."""
    before = job.get("ran_before")
    if not before:
        return None
    return (
        f"about {format_seconds(before['longest_s'])} (learned from {count(before['runs'], 'run')})"
    )
