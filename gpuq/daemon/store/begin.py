"""When a job that was submitted for later may start."""

from dataclasses import dataclass
from typing import Any

from gpuq.core.asked.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A moment on CLOCK_BOOTTIME (s), which counts the time of one boot of the machine."""

    id: str
    boottime: float


def begin_columns(spec: Spec, now: float, boot: Boot | None) -> dict[str, Any]:
    """What of `jobs` says so; nothing for one that may start at once, or was to before `now`. A length
    of time is measured from `boot`."""
    if spec.begin_in_s:
        assert boot is not None
        return {
            "delayed_for": "begin",
            "delayed_until_at": now + spec.begin_in_s,
            "delayed_until_boottime": boot.boottime + spec.begin_in_s,
            "delayed_boot": boot.id,
        }
    if spec.begin_at is None or spec.begin_at <= now:
        return {}
    return {"delayed_for": "begin", "delayed_until_at": spec.begin_at}
