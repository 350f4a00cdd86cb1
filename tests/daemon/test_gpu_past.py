"""The daemon's memory of what its GPUs read, and who asks for it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.callers.peer import NOBODY, Peer
from gpuq.errors import UsageError
from tests.alive import shown_by_hand
from tests.builders import gpu
from tests.daemon.asking import Asked, asked

GUEST = Peer(uid=NOBODY, gid=NOBODY, pid=1, user="nobody")


def test_what_was_read_is_told_by_the_clock_on_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(at: Asked) -> None:
        clock = at.daemon.clock
        busy = replace(gpu(0), utilization_percent=97, power_w=388.26, temperature_c=71)
        await at.daemon.show(busy, gpu(1))
        clock.awake_s += 60.0
        clock.set_s -= 3600.0  # which moves the answer, and none of what was read
        await at.daemon.show(replace(gpu(0), utilization_percent=None), gpu(1))
        told = await at.ask("gpu_history", window_s=120.0, buckets=120)
        ends_at = told["begin_at"] + 120 * told["step_s"]
        assert clock.wall() < ends_at <= clock.wall() + told["step_s"]
        own = told["gpus"][gpu(0).uuid]
        seen = [n for n, value in enumerate(own["utilization_percent"]) if value is not None]
        assert len(seen) == 1
        assert 57 <= 119 - seen[0] <= 61
        assert own["utilization_percent"][seen[0]] == 97.0
        assert own["power_w"][seen[0]] == 388.3
        assert own["temperature_c"][seen[0]] == 71.0
        used = told["gpus"][gpu(1).uuid]["memory_used_bytes"]
        assert [value for value in used if value is not None] == [0, 0]

    shown_by_hand(monkeypatch)
    asked(tmp_path, deed)


def test_an_answer_is_bounded_and_everybody_may_ask(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await at.daemon.show(gpu(0))
        for window_s in (1.0, 300.0, 3600.0, 86400.0):
            told = await at.ask("gpu_history", window_s=window_s, peer=GUEST)
            assert {len(row) for row in told["gpus"][gpu(0).uuid].values()} <= set(range(1, 301))

    asked(tmp_path, deed)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "window_s: None is no length of time"),
        ({"window_s": 0.5}, "window_s: 0.5 is no"),
        ({"window_s": 86401}, "window_s: 86401 is no"),
        ({"window_s": float("nan")}, "window_s: nan is no"),
        ({"window_s": True}, "window_s: True is no"),
        ({"window_s": "300"}, "window_s: '300' is no"),
        ({"window_s": 60, "buckets": 0}, "buckets: 0 is no whole number from 1 to 500"),
        ({"window_s": 60, "buckets": 501}, "buckets: 501 is no"),
        ({"window_s": 60, "buckets": 2.5}, "buckets: 2.5 is no"),
        ({"window_s": 60, "buckets": True}, "buckets: True is no"),
    ],
)
def test_what_is_no_window_is_refused(tmp_path: Path, request_: dict[str, Any], words: str) -> None:
    async def deed(at: Asked) -> None:
        with pytest.raises(UsageError, match=words.replace("(", r"\(")):
            await at.ask("gpu_history", **request_)

    asked(tmp_path, deed)


def test_a_daemon_without_gpus_has_no_past(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await asyncio.sleep(0)
        assert (await at.ask("gpu_history", window_s=60.0))["gpus"] == {}

    asked(tmp_path, deed)
