"""GPUs that are left to others at some hours of the week are given on when these are over."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuq.core.model import Request
from gpuq.daemon.clock import Clock
from tests.alive import Alive, MovedClock, with_alive
from tests.desk import until

WHOLE = Request(gpus=1)
OFFICE = {"gpus": "sim:1x24G", "reserve_idle": "1", "reserve_hours": "mon 09:00-18:00"}
MON, MINUTE_S, HOUR_S = 0, 60.0, 3600.0


class Monday(MovedClock):
    """It is so long before six on a Monday."""

    def __init__(self, left_s: float) -> None:
        super().__init__()
        self.set_s = -(super().wall() % MINUTE_S)  # so that minutes are full when six is
        self.six = super().wall()
        self.be_early_by(left_s)

    def be_early_by(self, left_s: float) -> None:
        self.set_s += self.six - left_s - self.wall()

    def local(self) -> tuple[int, int]:
        return MON, 18 * 60 + int((self.wall() - self.six) // MINUTE_S)


async def is_kept_waiting(daemon: Alive, job: int) -> None:
    def is_so() -> bool:
        return "people outside gpuq" in daemon.loop.plan.reasons.get(job, "")

    await until(is_so, "it to wait for the hour")


def test_a_job_waits_for_the_end_of_the_hours_and_starts_when_it_comes(tmp_path: Path) -> None:
    clock = Monday(HOUR_S)

    async def deed(daemon: Alive) -> None:
        job = daemon.submit("true", request=WHOLE)
        await is_kept_waiting(daemon, job)
        clock.be_early_by(0.5)
        await daemon.turn()  # and then nobody says anything any more
        await daemon.ended(job)
        assert clock.wall() >= clock.six

    with_alive(tmp_path, deed, clock, **OFFICE)


def test_whoever_sets_the_clock_past_the_hours_has_the_job_started_within_a_minute(
    tmp_path: Path,
) -> None:
    clock = Monday(8 * HOUR_S)

    async def deed(daemon: Alive) -> None:
        job = daemon.submit("true", request=WHOLE)
        await is_kept_waiting(daemon, job)
        longest_s = daemon.loop._longest_sleep_s()
        assert longest_s is not None
        assert 0 < longest_s <= MINUTE_S
        clock.set_s += 9 * HOUR_S
        await daemon.turn()  # in place of the minute
        await daemon.ended(job)

    with_alive(tmp_path, deed, clock, **OFFICE)


def test_the_clock_is_looked_at_only_while_a_job_waits_for_the_hour(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        without = daemon.submit("sleep 600", request=Request(gpus=0, cpus=2))
        await daemon.running(without)
        behind = daemon.submit("true", request=Request(gpus=0, cpus=2))
        await until(lambda: behind in daemon.loop.plan.reasons, "it to wait")
        assert daemon.loop._longest_sleep_s() is None
        waits = daemon.submit("true", request=WHOLE)
        await is_kept_waiting(daemon, waits)
        assert daemon.loop._longest_sleep_s() is not None
        daemon.kill(waits)
        await daemon.ended(waits)
        await daemon.turn()
        assert daemon.loop._longest_sleep_s() is None

    with_alive(tmp_path, deed, Monday(HOUR_S), **OFFICE, cpu_slots="2")


def test_without_hours_they_are_always_left(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit("true", request=WHOLE)
        await is_kept_waiting(daemon, job)
        assert daemon.loop._longest_sleep_s() is None
        settings = daemon.config
        settings.take_over(settings.having("reserve_idle", 0, "test"))
        daemon.loop.settings_changed()
        await daemon.ended(job)

    with_alive(tmp_path, deed, gpus="sim:1x24G", reserve_idle="1")


# ── the clock on the wall ──


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as moved:
        yield moved
    time.tzset()


class Noon(Clock):
    """Thursday, 1 January 1970, 12:00:30 in London."""

    def wall(self) -> float:
        return 12 * 3600 + 30.0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("UTC0", (3, 12 * 60)),
        ("JST-9", (3, 21 * 60)),
        ("NZST-12", (4, 0)),
        ("HST10", (3, 2 * 60)),
        ("IST-5:30", (3, 17 * 60 + 30)),
    ],
)
def test_the_time_of_the_week_is_told_where_the_machine_is(
    zone: pytest.MonkeyPatch, name: str, told: tuple[int, int]
) -> None:
    """Also where somebody has moved it since the daemon was started."""
    zone.setenv("TZ", name)
    assert Noon().local() == told
