"""A daemon that is asked by function calls, each as some user's. Its jobs are real ones.

async def deed(at: Asked) -> None:
    job = at.daemon.submit("exec sleep 600", held=True)
    assert await at.done("hold", job, off=True) == ["released"]

asked(tmp_path, deed)
"""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuq.core.asked.elements import Elements
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.handlers import Handlers
from tests import stored
from tests.alive import Alive, with_alive
from tests.stored import ALICE, BOB

FOR_EVER = "exec sleep 600"
SLOW_TO_END = "trap 'sleep 0.2; exit 0' TERM; while :; do sleep 0.02; done"
ANN = Peer(uid=ALICE.uid, gid=ALICE.gid, pid=1, user="alice")
BEN = Peer(uid=BOB.uid, gid=BOB.gid, pid=1, user="bob")
CAROL = Peer(uid=2003, gid=2003, pid=1, user="carol", is_admin=True)
Answer = dict[str, Any]
Deed = Callable[["Asked"], Coroutine[Any, Any, None]]


class Asked:
    """A daemon whose clients are function calls."""

    def __init__(self, daemon: Alive) -> None:
        self.daemon = daemon
        self.store = daemon.store
        self.handlers = Handlers(daemon.store, daemon.config, daemon.loop, daemon.watchers)

    async def ask(self, do: str, *refs: int | str, peer: Peer = ANN, **more: Any) -> Answer:
        asked = {"do": do, "refs": [str(ref) for ref in refs], **more}
        return await self.handlers.handle(asked, peer)

    async def do(self, do: str, *refs: int | str, peer: Peer = ANN, **more: Any) -> list[Answer]:
        answer: list[Answer] = (await self.ask(do, *refs, peer=peer, **more))["jobs"]
        return answer

    async def done(self, do: str, *refs: int | str, **more: Any) -> list[str]:
        return [one["done"] for one in await self.do(do, *refs, **more)]

    async def why(self, do: str, *refs: int | str, **more: Any) -> str:
        """Of one job that is refused."""
        (one,) = await self.do(do, *refs, **more)
        assert one["done"] == "refused"
        return str(one["why"])

    def wait_for_ever(self, **asked: Any) -> int:
        """A job that waits: it wants a GPU, and nobody shows one."""
        return self.daemon.submit("true", request=replace(stored.spec().request, gpus=1), **asked)

    def array(self, count: int) -> range:
        first = self.wait_for_ever(elements=Elements(indices=(range(count),)))
        return range(first, first + count)

    def rows(self) -> dict[tuple[int, int], str]:
        found = self.store.database.rows("select id, last_id, state from jobs order by id")
        return {(row["id"], row["last_id"]): row["state"] for row in found}

    def starts_in_order(self) -> list[int]:
        """Those that wait, as the scheduler goes through them."""
        rows = self.store.database.rows(
            "select id from jobs where state = 'queued' order by priority desc, rank, place, id"
        )
        return [row["id"] for row in rows]

    async def seen(self, job: int, peer: Peer = ANN) -> Answer:
        (found,) = (await self.ask("status", job, peer=peer))["jobs"]
        return dict(found)


def asked(tmp_path: Path, deed: Deed, **flags: Any) -> None:
    async def main(daemon: Alive) -> None:
        await deed(Asked(daemon))

    with_alive(tmp_path, main, **flags)
