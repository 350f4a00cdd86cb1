"""What was measured, and what it is held against. Nothing is measured here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any

GPUQ, LIMIT = "gpuq", "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One figure, measured several times, or why there is none."""

    values: tuple[float, ...] = ()
    why_none: str | None = None

    @property
    def median(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def least(self) -> float | None:
        return min(self.values, default=None)

    @property
    def most(self) -> float | None:
        return max(self.values, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound for gpuq's median, or where `against` names a contender for its ratio to theirs."""

    at_least: float
    aim: float | None = None
    against: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    target: Target
    value: float | None  # None: one of the two was not measured
    is_met: bool | None
    is_aim_met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: the same work done by each, in one unit."""

    work: str
    unit: str
    samples: Mapping[str, Samples]
    limit: str = ""  # what the contender LIMIT is in this row
    targets: Sequence[Target] = ()
    more_is_better: bool = False
    notes: Sequence[str] = field(default_factory=tuple)

    def judged(self) -> list[Judged]:
        return [self._judge(target) for target in self.targets]

    def _judge(self, target: Target) -> Judged:
        value = self._median(GPUQ)
        if target.against is not None:
            other = self._median(target.against)
            value = value / other if value is not None and other else None
        return Judged(
            target=target,
            value=value,
            is_met=self._holds(value, target.at_least),
            is_aim_met=self._holds(value, target.aim),
        )

    def _median(self, contender: str) -> float | None:
        samples = self.samples.get(contender)
        return None if samples is None else samples.median

    def _holds(self, value: float | None, bound: float | None) -> bool | None:
        if value is None or bound is None:
            return None
        return value >= bound if self.more_is_better else value <= bound


def as_json(row: Row) -> dict[str, Any]:
    def told(samples: Samples) -> dict[str, Any]:
        if samples.why_none is not None:
            return {"why_none": samples.why_none}
        return {
            "median": samples.median,
            "least": samples.least,
            "most": samples.most,
            "values": samples.values,
        }

    return {
        "work": row.work,
        "unit": row.unit,
        "more_is_better": row.more_is_better,
        "limit_is": row.limit or None,
        "contenders": {name: told(samples) for name, samples in row.samples.items()},
        "targets": [asdict(judged) for judged in row.judged()],
        "notes": list(row.notes),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """By linear interpolation between the two nearest ranks."""
    ranked = sorted(values)
    place = (len(ranked) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)


def percentile_of(percent: float) -> Callable[[Sequence[float]], float]:
    return partial(percentile, percent=percent)
