"""Who waits for a job to start or to end, or for anything to be written down. What nobody waits for
costs nothing."""

import asyncio


class Watchers:
    """Futures by job and moment; the loop publishes, handlers wait."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], set[asyncio.Future[None]]] = {}
        self._commit: asyncio.Future[None] | None = None

    def watch(self, job: int, moment: str) -> asyncio.Future[None]:
        """A future that is done when the job is `started` or `ended`; cancel it to leave."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = (job, moment)
        self._waiting.setdefault(key, set()).add(future)
        future.add_done_callback(lambda done: self._forget(key, done))
        return future

    def publish(self, job: int, moment: str) -> None:
        for future in self._waiting.pop((job, moment), set()):
            if not future.done():
                future.set_result(None)

    async def next_commit(self, timeout_s: float | None) -> None:
        """Until something has been written down, or the time is up; None: however long it takes."""
        if self._commit is None:
            self._commit = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._commit,), timeout=timeout_s)

    def publish_commit(self) -> None:
        commit, self._commit = self._commit, None
        if commit is not None and not commit.done():
            commit.set_result(None)

    def _forget(self, key: tuple[int, str], future: asyncio.Future[None]) -> None:
        watching = self._waiting.get(key)
        if watching is not None:
            watching.discard(future)
            if not watching:
                del self._waiting[key]
