"""What a daemon has told, and what came of that, as tests wait for it."""

from typing import Any

from gpuq.daemon.store.notices import listed
from tests.alive import Alive


def notices(daemon: Alive) -> list[dict[str, Any]]:
    """The oldest first."""
    return listed(daemon.store.database, None, limit=1000)[::-1]


async def settled(daemon: Alive, number: int = 1) -> list[dict[str, Any]]:
    """Once so many notices are over."""

    def over() -> bool:
        return sum(one["ended_at"] is not None for one in notices(daemon)) >= number

    await daemon.until(over, f"the end of {number} notices: {notices(daemon)}")
    return notices(daemon)


async def tried(daemon: Alive, tries: int) -> dict[str, Any]:
    """The only notice, once it has failed so often and waits."""

    def waits() -> bool:
        (one,) = notices(daemon)
        return bool(one["state"] == "waiting" and one["tries"] == tries)

    await daemon.until(waits, f"try {tries} to fail: {notices(daemon)}")
    return notices(daemon)[0]


def causes(daemon: Alive, kind: str = "notice_failed") -> list[str]:
    rows = daemon.store.database.rows("select cause from events where kind = ?", (kind,))
    return [row["cause"] for row in rows]
