"""How much of the machine's memory and processors a job may use, and what is promised of that.

Where a control group can be had the kernel enforces both. Elsewhere gpuq looks at the memory once a
second, which is a weaker promise, and the processors are everybody's. Whoever asks for a bound is told
which promise he got.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from gpuq.core.units import format_bytes


class MemBound(StrEnum):
    """Who sees to it that a job keeps to its --mem."""

    KERNEL = "kernel"
    WATCHED = "watched"  # the daemon, once a second


class CpuBound(StrEnum):
    """Who sees to it that a job keeps to its --cpus."""

    KERNEL = "kernel"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What all processes of a job together may use; None: as much as there is."""

    mem_bytes: int | None = None
    cpus: int | None = None

    def __bool__(self) -> bool:
        return self.mem_bytes is not None or self.cpus is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What the kernel enforces here: for each bound why it does not, or None where it does."""

    mem_trouble: str | None = None
    cpu_trouble: str | None = None

    def can_do_any_of(self, bounds: Bounds) -> bool:
        mem = bounds.mem_bytes is not None and self.mem_trouble is None
        return mem or (bounds.cpus is not None and self.cpu_trouble is None)


def weaker_promise(asked: Iterable[Bounds], here: Enforcement) -> str | None:
    """What somebody who asks for that has to know; None where the kernel enforces all of it."""
    asked = list(asked)
    said: dict[str, list[str]] = {}  # by why it is so
    if here.mem_trouble is not None and any(one.mem_bytes is not None for one in asked):
        weaker = "--mem is watched once a second here and not enforced by the kernel"
        said.setdefault(here.mem_trouble, []).append(weaker)
    if here.cpu_trouble is not None and any(one.cpus is not None for one in asked):
        said.setdefault(here.cpu_trouble, []).append("--cpus is not enforced here")
    return "; ".join(f"{', '.join(what)}: {why}" for why, what in said.items()) or None


def excess_words(mem_bytes: int | None, used_bytes: int | None) -> str:
    """ "it used 8.3G of the 8G of memory that it asked for (--mem)", of a job that was watched."""
    asked = f"of the {format_bytes(mem_bytes)} of memory that it asked for (--mem)"
    if used_bytes is None:
        return f"watched, it used more than all {asked}"
    return f"watched, it used {format_bytes(used_bytes)} {asked}"
