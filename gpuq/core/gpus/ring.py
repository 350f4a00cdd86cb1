"""What GPUs read in the last 24 hours, in as few bytes as graphs of it need.

A ring has tiers, each of so many buckets of so many seconds: fine ones for the last minutes, coarse
ones for the day. A bucket holds the mean of each reading. What was not read is absent, and stays so: a
graph shows a gap there. Nothing of this is stored: a daemon that is restarted begins anew, since what
jobs had of their GPUs is kept with the jobs.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, nan

from gpuq.core.gpus.gpu import Gpu

READINGS = ("utilization_percent", "memory_used_bytes", "power_w", "temperature_c")
WINDOW_S = 86400.0  # the longest
BUCKETS, MOST_BUCKETS = 300, 500  # of an answer
# Steps in seconds and how many of them: 5 minutes, an hour, a day.
TIERS = ((1, 300), (12, 300), (60, 1440))
# A reading holds until the next one if that comes so soon: where nobody looks, GPUs are read every
# 5 s. After a longer silence nobody knows.
LASTS_S = 12.0
# GPUs come and go, instances of MIG above all; the rings of those that were read last are kept.
MOST_RINGS = 64

Values = Sequence[float | None]  # in the order of READINGS, or of whatever a ring keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Means over steps of `step_s`, the first of which began at `begin`: by uuid, then by the name of
    the reading. None: nothing was read then."""

    begin: float  # s, by the clock that the readings came with
    step_s: float
    gpus: Mapping[str, Mapping[str, list[float | None]]]


class Rings:
    """A ring for each GPU, by its uuid: one that went away and comes back goes on with its own. Times
    are those of a clock that never runs backwards."""

    def __init__(self) -> None:
        self._by_uuid: dict[str, Ring] = {}

    def add(self, gpus: Sequence[Gpu], at: float) -> None:
        """A reading of each of them, made at that time."""
        for gpu in gpus:
            # Last in the dict is who was read last.
            ring = self._by_uuid.pop(gpu.uuid, None) or Ring(TIERS, readings=len(READINGS))
            self._by_uuid[gpu.uuid] = ring
            ring.add(at, [getattr(gpu, name) for name in READINGS])
        while len(self._by_uuid) > max(MOST_RINGS, len(gpus)):
            del self._by_uuid[next(iter(self._by_uuid))]

    def history(self, window_s: float, buckets: int, now: float) -> History:
        """The last `window_s` in at most that many steps; as long ones as the tier has that reaches so
        far back, or several of those in one."""
        tier_s, most = reach(TIERS, window_s)
        step_s = tier_s * max(1, ceil(window_s / tier_s / buckets))
        count = min(ceil(window_s / step_s), ceil(tier_s * most / step_s))
        last = int(now // step_s)
        told = {
            uuid: dict(zip(READINGS, ring.means(tier_s, step_s, last, count), strict=True))
            for uuid, ring in self._by_uuid.items()
        }
        return History(begin=float((last - count + 1) * step_s), step_s=float(step_s), gpus=told)

    @property
    def size_bytes(self) -> int:
        return sum(ring.size_bytes for ring in self._by_uuid.values())


def reach(tiers: Sequence[tuple[int, int]], window_s: float) -> tuple[int, int]:
    """The finest tier that holds so much, or the one that holds most."""
    return next((tier for tier in tiers if tier[0] * tier[1] >= window_s), tiers[-1])


class Ring:
    """Of one GPU: `readings` numbers at a time, in `tiers` of (seconds, buckets). A reading holds for
    up to `lasts_s` if another one follows."""

    def __init__(
        self, tiers: Sequence[tuple[int, int]], *, readings: int, lasts_s: float = LASTS_S
    ) -> None:
        self._tiers = {step_s: _Tier(step_s, count, readings) for step_s, count in tiers}
        self._lasts_s = lasts_s
        self._last_at: float | None = None
        self._last: Values = [None] * readings

    def add(self, at: float, values: Values) -> None:
        is_held = self._last_at is not None and at - self._last_at <= self._lasts_s
        held = self._last if is_held else [None] * len(values)
        for tier in self._tiers.values():
            tier.add(at, values, held)
        self._last_at, self._last = at, list(values)

    def forget_last(self) -> None:
        """Whatever comes next, nobody knows what was in between."""
        self._last_at = None

    def means(self, tier_s: int, step_s: int, last: int, count: int) -> list[list[float | None]]:
        """Of each reading `count` means over `step_s`, a multiple of `tier_s`; the last of them over
        the step of that number, counted from time 0."""
        return self._tiers[tier_s].means(step_s // tier_s, last, count)

    @property
    def size_bytes(self) -> int:
        return sum(tier.size_bytes for tier in self._tiers.values())


class _Tier:
    """Buckets of `step_s`, at most `most`, numbered from time 0. Bucket n stands at n - `_origin`,
    round and round; the array grows only until it is full. Absent is NaN."""

    def __init__(self, step_s: int, most: int, readings: int) -> None:
        self._step_s = step_s
        self._most = most
        self._readings = readings
        self._means = array("f")
        self._origin = self._newest = -1  # the first bucket ever, and the last
        self._sums = [0.0] * readings
        self._counts = [0] * readings

    def add(self, at: float, values: Values, held: Values) -> None:
        number = int(at // self._step_s)
        if not self._means:
            self._origin, self._newest = number, number - 1
        if number > self._newest:
            self._go_on_to(number, held)
        for n, value in enumerate(values):
            if value is not None:
                self._sums[n] += value
                self._counts[n] += 1
        means = (s / c if c else nan for s, c in zip(self._sums, self._counts, strict=True))
        self._put(self._newest, array("f", means))

    def _go_on_to(self, number: int, held: Values) -> None:
        """What lies between is as it was before, or unknown."""
        first = self._newest + 1
        if number - first >= self._most:  # all that was before is out of reach
            first = self._origin = number - self._most + 1
            self._means = array("f")
        between = array("f", (nan if value is None else value for value in held))
        for skipped in range(first, number):
            self._put(skipped, between)
        self._newest = number
        self._sums, self._counts = [0.0] * self._readings, [0] * self._readings

    def _put(self, number: int, means: "array[float]") -> None:
        at = (number - self._origin) % self._most * self._readings
        if at == len(self._means):
            self._means.extend(means)
        else:
            self._means[at : at + self._readings] = means

    def means(self, per_step: int, last: int, count: int) -> list[list[float | None]]:
        first = (last - count + 1) * per_step
        numbers = range(first, first + count * per_step)
        return [
            _means_of(self._row(reading, numbers), per_step) for reading in range(self._readings)
        ]

    def _row(self, reading: int, numbers: range) -> Sequence[float]:
        """That reading in the buckets of these numbers, NaN where there is none."""
        first = max(numbers.start, self._origin, self._newest - self._most + 1)
        stop = min(numbers.stop, self._newest + 1)
        if first >= stop:
            return [nan] * len(numbers)
        begin, end = (first - self._origin) % self._most, (stop - 1 - self._origin) % self._most + 1
        column = self._means[reading :: self._readings]
        known = column[begin:end] if begin < end else column[begin:] + column[:end]
        before = array("f", [nan]) * (first - numbers.start)
        return before + known + array("f", [nan]) * (numbers.stop - stop)

    @property
    def size_bytes(self) -> int:
        return len(self._means) * self._means.itemsize


def _means_of(row: Sequence[float], per_step: int) -> list[float | None]:
    """A NaN is not equal to itself."""
    if per_step == 1:
        return [value if value == value else None for value in row]
    means: list[float | None] = []
    for at in range(0, len(row), per_step):
        known = [value for value in row[at : at + per_step] if value == value]
        means.append(sum(known) / len(known) if known else None)
    return means
