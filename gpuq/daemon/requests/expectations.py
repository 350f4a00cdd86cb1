"""When jobs that wait are expected to start, for whoever asks. It is reckoned only then, and once for
all who ask before anything else happens."""

import time
from typing import Any

from gpuq.core.model import JobState
from gpuq.core.scheduling.forecast import Forecast, forecast
from gpuq.daemon.requests.world import World
from gpuq.daemon.store.connection import Row

# What was taken for the length of a run may be outlived by now.
KEPT_S = 5.0


class Expectations:
    def __init__(self, world: World) -> None:
        self._world = world
        self._turn: int | None = None
        self._made_at = 0.0
        self._wall_offset_s = 0.0
        self._forecast = Forecast()

    def of(self, row: Row) -> dict[str, Any]:
        """As the view of a job shows it: seconds since the epoch, whether that is a guess, and what it
        rests on or what keeps anybody from saying."""
        if row["state"] != JobState.QUEUED or row["held_by"] is not None:
            return {}
        self._look_ahead()
        expected = self._forecast.starts.get(row["id"])
        if expected is None:
            return {"expected_start_from": self._forecast.why_unknown(row["id"])}
        return {
            "expected_start": expected.at + self._wall_offset_s,
            "expected_start_is_guess": expected.is_guess,
            "expected_start_from": expected.words,
        }

    def _look_ahead(self) -> None:
        now = time.monotonic()
        if self._turn == self._world.turns and now - self._made_at < KEPT_S:
            return
        snapshot = self._world.look()
        self._forecast = forecast(snapshot)
        self._wall_offset_s = snapshot.wall - snapshot.now
        self._turn, self._made_at = self._world.turns, now
