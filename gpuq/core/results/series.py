"""How what is measured of an attempt went from its beginning to its end, in a bounded number of points.

Time is cut into stretches of equal length, a second at first. When there are too many of them, two
and two become one: an hour is as long to read as a minute, and no measurement is left out. A stretch
in which nothing was measured has no point, so a gap stays a gap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_POINTS = 240
FIRST_WIDTH_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured in one stretch: the mean of so many measurements, and the most."""

    count: int
    mean: float
    most: float


class Series:
    """Of each quantity its points, by the number of their stretch: that with the number n begins
    n * `width_s` after the beginning. All quantities have the same stretches."""

    def __init__(self) -> None:
        self.width_s = FIRST_WIDTH_S
        self.points: dict[str, dict[int, Point]] = {}
        self._least: dict[str, float] = {}

    def __len__(self) -> int:
        """The stretches in which anything was measured."""
        return len({number for points in self.points.values() for number in points})

    def add(self, at_s: float, measured: Mapping[str, float | None]) -> None:
        """`at_s` is the time since the beginning; what was absent (None) leaves no trace."""
        known = {name: value for name, value in measured.items() if value is not None}
        if not known:
            return
        at_s = max(at_s, 0.0)
        while at_s >= self.width_s * MOST_POINTS:
            self._double()
        number = int(at_s / self.width_s)
        for name, value in known.items():
            points = self.points.setdefault(name, {})
            point = Point(count=1, mean=value, most=value)
            points[number] = _joined(points[number], point) if number in points else point
            self._least[name] = min(self._least.get(name, value), value)

    def _double(self) -> None:
        self.width_s *= 2
        for name, points in self.points.items():
            joined: dict[int, Point] = {}
            for number, point in points.items():
                half = number // 2
                joined[half] = _joined(joined[half], point) if half in joined else point
            self.points[name] = joined

    def told(self) -> dict[str, Any]:
        """As it is stored and sent: a point is [number, mean, max, count]."""
        return {
            "width_s": self.width_s,
            "quantities": {name: self._quantity(name) for name in self.points},
        }

    def _quantity(self, name: str) -> dict[str, Any]:
        points = self.points[name]
        count = sum(point.count for point in points.values())
        mean = sum(point.mean * point.count for point in points.values()) / count
        return {
            "min": self._least[name],
            "mean": round(mean, 3),
            "max": max(point.most for point in points.values()),
            "points": [
                [number, round(point.mean, 3), point.most, point.count]
                for number, point in sorted(points.items())
            ],
        }


def read_series(told: Mapping[str, Any]) -> Series:
    """What `told` has told, to be gone on with."""
    series = Series()
    series.width_s = told["width_s"]
    for name, quantity in told["quantities"].items():
        series._least[name] = quantity["min"]
        series.points[name] = {
            number: Point(count=count, mean=mean, most=most)
            for number, mean, most, count in quantity["points"]
        }
    return series


def _joined(one: Point, other: Point) -> Point:
    """A mean of means lies between them, which rounding alone would not promise."""
    count = one.count + other.count
    mean = one.mean + (other.mean - one.mean) * other.count / count
    low, high = sorted((one.mean, other.mean))
    return Point(count=count, mean=min(max(mean, low), high), most=max(one.most, other.most))
