"""Moments on the command line, by the clock on the wall of whoever types them."""

from datetime import datetime, timedelta
from typing import NamedTuple

from gpuq.cli.job_options import read_option
from gpuq.core.asked.moments import parse_moment


class Moment(NamedTuple):
    """A moment in seconds since the epoch, or (None) so many seconds from now."""

    at: float | None
    in_s: float = 0.0


def read_moment(option: str, text: str, now: datetime | None = None) -> Moment:
    """ "18:00", "tomorrow 08:00", "2026-07-31T18:00", "+2h", "now". UsageError names the option."""
    here = now or datetime.now()
    moment = read_option(option, lambda said: parse_moment(said, here), text)
    if isinstance(moment, timedelta):
        return Moment(None, moment.total_seconds())
    assert moment is not None
    return Moment(_epoch(moment, here))


def _epoch(moment: datetime, now: datetime) -> float:
    """Of two hours with the same name, as in an autumn night, the one that is still to come."""
    first = moment.timestamp()
    return first if first >= now.timestamp() else moment.replace(fold=1).timestamp()
