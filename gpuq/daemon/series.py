"""How the attempts that run are going: what is measured of them anyway, kept as a series of each.

Part of the loop and on its thread. It is stored when the attempt ends, once a minute until then where
the attempt has GPUs, and when this daemon leaves: the next one goes on with what it finds, and the
time that nobody looked stays empty.
"""

from collections.abc import Iterable

from gpuq.core.results.series import Series
from gpuq.daemon.store import Store

Key = tuple[int, int]  # job and attempt
FEWEST_POINTS = 2  # one is no graph, and jobs that are over in no time cost nothing


class SeriesOfAttempts:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._series: dict[Key, Series] = {}

    def note(self, key: Key, at_s: float, **measured: float | None) -> None:
        """`at_s` after the attempt began."""
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._store.series.read(*key) or Series()
        series.add(at_s, measured)

    def latest(self, key: Key) -> Series | None:
        """Of one that runs."""
        return self._series.get(key)

    def at_end(self, key: Key) -> Series | None:
        """What is to be stored with its end; None where there is nothing to be shown."""
        series = self._series.get(key)
        return series if series is not None and len(series) >= FEWEST_POINTS else None

    def write(self, running: Iterable[Key]) -> None:
        """Of these attempts, which run still: what has ended has been written with its end."""
        for key in running:
            if (series := self.at_end(key)) is not None:
                self._store.series.write(*key, series)

    def forget(self, key: Key) -> None:
        """It has ended."""
        self._series.pop(key, None)
