"""How long the daemon's own work takes, kept in memory until the tallies take it over."""

from collections.abc import Mapping

from gpuq.core.results.tallying import Key, bucket, sum_of


class Durations:
    """Notes lengths of time (s) under the name of a histogram: one addition each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: dict[Key, float] = {}

    def note(self, seconds: float) -> None:
        for key, value in (
            ((self._name, bucket(self._name, seconds)), 1.0),
            ((sum_of(self._name), ""), max(seconds, 0.0)),
        ):
            self._counts[key] = self._counts.get(key, 0.0) + value

    def counted(self) -> Mapping[Key, float]:
        return dict(self._counts)

    def forget(self, counted: Mapping[Key, float]) -> None:
        """What was taken over; what came meanwhile stays."""
        for key, value in counted.items():
            self._counts[key] -= value
