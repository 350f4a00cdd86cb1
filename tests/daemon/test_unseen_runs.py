"""What ran and ended while no daemon was there has run all the same: it is told of, and counted."""

import asyncio
from pathlib import Path
from typing import Any

from gpuq.daemon.linux import processes
from gpuq.daemon.supervisor import News
from tests import stored
from tests.alive import Alive, alive
from tests.noticed import notices, settled


def unseen(tmp_path: Path, script: str, **asked: Any) -> tuple[dict[str, Any], Alive, list[str]]:
    """Runs a job that its daemon does not hear of any more once it has started it; the job's row, what
    is left of the next daemon, and the moments that were told of."""
    told: list[str] = []

    async def main() -> tuple[dict[str, Any], Alive]:
        async with alive(tmp_path, leave=True) as first:
            first.loop._supervisor._report = _deaf
            first.loop._supervisor._hear_clean = lambda gate, *_: gate.close()  # its runner leaves
            job = first.submit(script, **asked)
            await first.until(lambda: first.attempts(job), "its attempt")
            (tmp_path / "go").touch()
            runner = (first.attempts(job)[0]["runner_pid"], first.attempts(job)[0]["runner_start"])
            await first.until(lambda: not processes.is_alive(*runner), "its end")
            assert first.row(job)["state"] == "starting", "nobody has heard of it"
        async with alive(tmp_path) as second:
            await second.ended(job)
            if "on_start" in asked:
                await settled(second, 1)
                told.extend(one["moment"] for one in notices(second))
            assert stored.kinds(second.store, job)[-2:] == ["running", "ended"]
            return second.attempts(job)[0] | second.row(job), second

    row, daemon = asyncio.run(main())
    return row, daemon, told


def _deaf(news: News) -> None:
    pass


WAIT = "while [ ! -e go ]; do sleep 0.01; done"


def test_it_has_run_from_when_it_began(tmp_path: Path) -> None:
    row, _, _ = unseen(tmp_path, f"{WAIT}; sleep 0.3; exit 3")
    assert row["outcome"] == "failed"
    assert row["started_at"] is not None
    assert 0.3 <= row["ended_at"] - row["started_at"] < 60


def test_what_it_left_behind_does_not_make_it_begin_later(tmp_path: Path) -> None:
    row, _, _ = unseen(tmp_path, f"{WAIT}; sleep 0.3; sleep 0.5 &")
    assert row["ended_at"] - row["started_at"] >= 0.3


def test_its_start_is_told_to_whom_it_names(tmp_path: Path) -> None:
    note = f"echo x >> {tmp_path}/told"
    _, _, told = unseen(tmp_path, WAIT, on_start=note)
    assert told == ["start"]
    assert (tmp_path / "told").read_text() == "x\n"


def test_what_never_began_has_not_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path) as daemon:
            job = daemon.submit("true", cwd=b"/nowhere")
            row = await daemon.ended(job)
            assert row["started_at"] is None
            assert "running" not in stored.kinds(daemon.store, job)

    asyncio.run(main())
