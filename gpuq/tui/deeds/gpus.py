"""What keys do to a GPU, as deeds. They name it by its uuid: an index may be another's by then."""

from typing import Any

from gpuq.cli.gpu_text import drained_words, resumed_words
from gpuq.cli.render import printable
from gpuq.client import Client
from gpuq.core.units import count, format_ranges
from gpuq.tui.data.picture import Gpu
from gpuq.tui.deeds.deed import Deed

LONGEST_REASON = 200


def drain(gpu: Gpu, reason: str) -> Deed:
    """It is given to nobody any more."""
    return Deed(
        words=["gpus", "drain", str(gpu["index"]), *(["-m", reason] if reason else [])],
        ask=lambda client: _one(client, "drain_gpus", gpu, reason=reason or None),
        said=lambda done: printable(drained_words(done)),
    )


def resume(gpu: Gpu) -> Deed:
    """It is given out again; one that is set aside after a test."""
    return Deed(
        words=["gpus", "resume", str(gpu["index"])],
        ask=lambda client: _one(client, "resume_gpus", gpu),
        said=lambda done: printable(resumed_words(done)),
    )


def is_kept_back(gpu: Gpu) -> bool:
    """By somebody, or because it is not well: it can be resumed."""
    return gpu["drained"] is not None or gpu["quarantine"] is not None


def consequence(gpu: Gpu) -> str:
    """Of draining it."""
    if not (jobs := gpu["jobs"]):
        return "Nothing runs on it. It is given to nobody until it is resumed."
    verb = "goes" if len(jobs) == 1 else "go"
    on_it = f"{count(len(jobs), 'job')} on it ({format_ranges(jobs)})"
    return f"{on_it} {verb} on. It is given to nobody else until it is resumed."


def checked_reason(gpu: Gpu, reason: str) -> list[str]:
    """The line that would do it. ValueError where the daemon would not take the reason."""
    if len(reason) > LONGEST_REASON:
        raise ValueError(f"a reason has up to {LONGEST_REASON} signs, this has {len(reason)}")
    return [drain(gpu, reason).line]


def _one(client: Client, do: str, gpu: Gpu, **how: Any) -> Any:
    (done,) = client.call(do, refs=[gpu["uuid"]], **how)["gpus"]
    return done
