"""What a submit is judged by is looked at once, for as long as it is the same."""

import asyncio
from collections.abc import Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq.errors import GpuqError, NeverFits
from tests.alive import shown_by_hand
from tests.builders import gpu
from tests.daemon.asking import ANN, BEN, CAROL, Answer, Asked, asked

HASH = sha256(b"A=1\0").hexdigest()


def submit(at: Asked, **more: Any) -> Coroutine[Any, Any, Answer]:
    job = {"argv": ["true"], "cwd": "/", "gpus": 0, "held": True} | more
    peer = job.pop("peer", ANN)
    return at.ask("submit", jobs=[job], env_hash=HASH, environment=["A=1"], peer=peer)


def test_what_fitted_once_is_judged_by_what_is_there_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(at: Asked) -> None:
        await at.daemon.show(gpu(0), gpu(1))
        await submit(at, gpus=2)
        # What a reading alone tells, such as what is left of a GPU's memory, is stored nowhere.
        monkeypatch.setattr(at.store.machine, "see_gpus", lambda gpus, now: None)
        await at.daemon.show(gpu(0))
        with pytest.raises(NeverFits):
            await submit(at, gpus=2)
        await at.daemon.show(gpu(0), gpu(1))
        await submit(at, gpus=2)

    asked(tmp_path, deed, gpus="sim:2x24G")


def test_a_limit_that_is_set_later_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown_by_hand(monkeypatch)

    async def limit(at: Asked, **what: Any) -> None:
        await at.ask("limit", subject="user:alice", peer=CAROL, **what)

    async def deed(at: Asked) -> None:
        await at.daemon.show(*map(gpu, range(3)))
        await submit(at, gpus=3)
        await limit(at, max_gpus=2)
        with pytest.raises(NeverFits, match="can never start"):
            await submit(at, gpus=3)
        await submit(at, gpus=3, peer=BEN)  # it is another one's
        await limit(at, max_gpus=3)
        await submit(at, gpus=3)

    asked(tmp_path, deed, gpus="sim:3x24G")


def test_a_setting_that_is_changed_holds(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await submit(at, cpus=4)
        at.daemon.config.take_over(at.daemon.config.having("cpu_slots", 2, "test"))
        with pytest.raises(NeverFits):
            await submit(at, cpus=4)

    asked(tmp_path, deed, cpu_slots="4")


def test_the_same_submit_twice_in_one_commit_is_one(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = {"argv": ["true"], "cwd": "/", "gpus": 0, "held": True}
        request = {"jobs": [job, job], "env_hash": HASH, "environment": ["A=1"], "token": "t"}
        first, second, other = await asyncio.gather(
            at.ask("submit", **request),
            at.ask("submit", **request),
            at.ask("submit", **request | {"token": "u"}),
        )
        assert first["entries"] == [(1, 1), (2, 2)]
        assert second == first
        assert other["first"] == 3
        assert await at.ask("submit", **request) == first

    asked(tmp_path, deed)


def test_who_leaves_has_submitted_all_the_same(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        await submit(at)  # from here on it is known which GPUs there are
        leaving = asyncio.ensure_future(submit(at))
        staying = asyncio.ensure_future(submit(at))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying)["first"] == 3
        with pytest.raises(asyncio.CancelledError):
            await leaving
        alone = asyncio.ensure_future(submit(at))
        await asyncio.sleep(0)
        alone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await alone
        assert list(at.rows()) == [(1, 1), (2, 2), (3, 3), (4, 4)]

    asked(tmp_path, deed)


def test_a_refusal_undoes_what_was_stored_of_it(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        request = {"jobs": [{"argv": ["true"], "cwd": "/", "gpus": 0}], "environment": ["A=1"]}
        with pytest.raises(GpuqError, match="no group g7"):
            await at.ask("submit", env_hash=HASH, group="g7", **request)
        assert at.rows() == {}
        assert not at.store.asked.knows_environment(ANN.uid, bytes.fromhex(HASH))

    asked(tmp_path, deed)
