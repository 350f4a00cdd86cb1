"""How busy each GPU was in the last five minutes: as the daemon had it, and what it told since."""

from collections.abc import Mapping, Sequence
from math import ceil, inf
from typing import Any

from gpuq.core.gpus.ring import Ring
from gpuq.tui.data.picture import Gpu

WINDOW_S = 300.0
# A GPU of which nothing is told reads as before, as long as the daemon tells anything.
_TIERS = ((1, int(WINDOW_S)),)


class GpuPast:
    """Utilisation in percent, by uuid. Times are those of the clock on the wall; where that is set
    back it begins anew."""

    def __init__(self) -> None:
        self._rings: dict[str, Ring] = {}
        self._now = -inf

    def load(self, rings: Mapping[str, Ring]) -> None:
        """In place of what was known of these."""
        self._rings |= rings

    def take(self, gpus: Sequence[Gpu], now: float) -> None:
        """What was told of them now."""
        if now < self._now:
            self._rings = {}
        self._now = now
        here = {gpu["uuid"]: gpu["utilization_percent"] for gpu in gpus}
        self._rings = {uuid: self._rings.get(uuid) or _new_ring() for uuid in here}
        for uuid, value in here.items():
            self._rings[uuid].add(now, [value])

    def forget_last(self) -> None:
        """Nothing more is told: what comes later says nothing of the time in between."""
        for ring in self._rings.values():
            ring.forget_last()

    def means(self, uuid: str, window_s: float, cells: int, now: float) -> list[float | None]:
        """So many means of it over the last `window_s`, a multiple of `cells` seconds."""
        ring = self._rings.get(uuid)
        if ring is None or not cells:
            return [None] * cells
        step_s = ceil(window_s / cells)
        (means,) = ring.means(1, step_s, int(now // step_s), cells)
        return means


def rings_of(history: Mapping[str, Any]) -> dict[str, Ring]:
    """Of an answer to `gpu_history`. It takes some time, and may be done in another thread."""
    begin, step_s = history["begin_at"], history["step_s"]
    rings = {uuid: _new_ring() for uuid in history["gpus"]}
    for uuid, ring in rings.items():
        for n, value in enumerate(history["gpus"][uuid]["utilization_percent"]):
            ring.add(begin + (n + 0.5) * step_s, [value])
    return rings


def _new_ring() -> Ring:
    return Ring(_TIERS, readings=1, lasts_s=inf)
