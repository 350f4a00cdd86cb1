"""Submissions: read, judged, and stored in one transaction with all that they depend on."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.config import Config
from gpuq.core.asked.spec import Spec
from gpuq.core.ends.bounds import weaker_promise
from gpuq.core.results.giving_up import parse_on_failure
from gpuq.core.scheduling.limits import too_many_queued
from gpuq.daemon import faults
from gpuq.daemon.callers.limits import hard_limits
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.clock import Clock
from gpuq.daemon.linux import processes
from gpuq.daemon.notices import by_apprise
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.commits import GroupCommit
from gpuq.daemon.requests.dry_runs import DryRuns, key_is_taken, past_begin
from gpuq.daemon.requests.known_gpus import KnownGpus
from gpuq.daemon.requests.queue_rules import groups_in_queues
from gpuq.daemon.requests.reading import Reading
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.asked import entries_of
from gpuq.daemon.store.begin import Boot
from gpuq.daemon.store.job_rows import Submitter
from gpuq.errors import GpuqError, NotPermitted, UsageError

FIRST_READING_S = 5.0  # how long a submit waits for the GPUs to be known

Answer = dict[str, Any]


class Submissions:
    """`machine` is every GPU that it has shown."""

    def __init__(self, store: Store, config: Config, world: World, machine: KnownGpus) -> None:
        self._store = store
        self._config = config
        self._world = world
        self._commits = GroupCommit(store, world.commit_and_start)
        self._clock = Clock()
        self._boot_id = processes.boot_id()
        self._dry_runs = DryRuns(store, world)
        self._reading = Reading(store, config, world, machine)
        self._is_read = False  # have the GPUs been

    async def submit(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Answers only once the jobs are on disk; or (`dry`) with what would become of them, and
        nothing is stored."""
        self._check_is_no_root(peer)
        is_dry = bool(request.get("dry"))
        token = None if is_dry else fields.token(request)
        if token is not None and (ids := self._store.asked.answered(peer.uid, token)):
            return self._answer(ids, None)
        known_tokens = self._store.database.writes("tokens")
        group = _group(request)
        await self._first_reading()
        groups = await groups_in_queues(self._config.policy(), peer)
        specs, note = self._reading.read_all(request, peer, groups)
        note = await self._with_promise(note, specs)
        _check_priority(specs, peer)
        key = _key(specs, request)
        hooks = (hook for spec in specs for hook in (spec.on_start, spec.on_end))
        note = _joined(note, past_begin(specs, self._clock.wall()), by_apprise.note_of(hooks))
        if is_dry:
            self._check_room(peer, sum(spec.count for spec in specs))
            return await self._dry_runs.foretell(specs, key, note, peer)
        digest = specs[0].environment
        content = fields.environment(request, digest)
        limits = hard_limits(peer) if self._config.mode == "system" else {}
        by = Submitter(peer.uid, peer.gid, peer.user, limits)

        def deed() -> Answer:
            if content is not None:
                self._store.asked.keep_environment(peer.uid, digest, content)
            elif not self._store.asked.knows_environment(peer.uid, digest):
                # Never heard of, or forgotten since no job had it any more.
                return {"wanted": "environment"}
            # The same submit may have come twice within one commit.
            is_news = self._store.database.writes("tokens") == known_tokens
            if token is not None and not is_news:
                ids = self._store.asked.answered(peer.uid, token)
                if ids is not None:
                    return self._answer(ids, note)
            if key is not None and (living := self._store.asked.living(peer.uid, key)) is not None:
                taken = f"{key_is_taken(key, living)}: nothing was queued"
                return self._answer(living, taken, is_new=False)
            self._check_room(peer, sum(spec.count for spec in specs))
            faults.here("submit.storing")
            boot = Boot(id=self._boot_id, boottime=self._clock.boottime())
            now = self._clock.wall()
            stored = self._store.asked.keep(
                by,
                specs,
                now=now,
                token=token,
                group=group,
                boot=boot,
                stop_after=parse_on_failure(self._config.on_failure),
            )
            return _answer(stored.ids, stored.group, _entries(specs, stored.entries), note)

        answer: Answer = await self._commits.run(deed)
        if "wanted" not in answer:
            faults.here("submit.committed")
            self._world.wake()
        return answer

    def _answer(self, ids: range, note: str | None, *, is_new: bool = True) -> Answer:
        """What stands of it in the database."""
        group, entries = self._store.asked.group_of(ids.start), self._store.asked.entries(ids)
        return _answer(ids, group, entries, note, is_new=is_new)

    async def submit_alike(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """As `submit`, where each of the jobs may say how many `times` it is to be queued, or with
        which other `argvs` too: as separate jobs, of which each has the seed of the one before it plus
        one. An array, a key and jobs that wait for others are told one by one. A request of its own,
        so that a daemon that does not know it queues nothing, and not one job of many."""
        return await self.submit({**request, "alike": True}, peer)

    async def dry_run(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """A request of its own, so that a daemon that does not know it queues nothing."""
        return await self.submit({**request, "dry": True}, peer)

    async def read_specs(
        self, jobs: Sequence[Answer], env_hash: str, peer: Peer, *, judged: bool
    ) -> list[Spec]:
        """Reads jobs as a submit does, and stores nothing. `judged`: also whether they can start here,
        and in that queue."""
        if not judged:
            return self._reading.read_unjudged(jobs, env_hash)
        await self._first_reading()
        groups = await groups_in_queues(self._config.policy(), peer)
        request = {"jobs": list(jobs), "env_hash": env_hash}
        return self._reading.read_all(request, peer, groups)[0]

    async def _first_reading(self) -> None:
        """Waits for it once, and not to hear again and again that it has come."""
        if not self._is_read:
            await self._world.first_reading(FIRST_READING_S)
            self._is_read = self._world.gpus is not None

    async def _with_promise(self, note: str | None, specs: Sequence[Spec]) -> str | None:
        """And what those who bound their job have to know of that."""
        bounds = [spec.bounds for spec in specs if spec.bounds]
        weaker = weaker_promise(bounds, await self._world.enforcement()) if bounds else None
        return _joined(note, weaker)

    def _check_room(self, peer: Peer, new: int) -> None:
        """Part of the transaction that stores them: of two who ask at once the later one is refused."""
        if (most := self._config.max_queued_per_user or None) is None:
            return
        if (why := too_many_queued(self._store.counted.queued(peer.uid), new, most)) is not None:
            raise GpuqError(why)

    def _check_is_no_root(self, peer: Peer) -> None:
        if peer.uid == 0 and self._config.mode == "system" and not self._config.allow_root_jobs:
            raise NotPermitted(
                "root may not submit jobs here: what they do could harm everybody. Submit as "
                "yourself, without sudo, or set allow_root_jobs = true in "
                f"{self._config.config}. Nothing was queued."
            )


def _entries(specs: Sequence[Spec], entries: Sequence[range]) -> list[tuple[int, int]]:
    """Of the jobs that are queued so many times each is one."""
    told: list[tuple[int, int]] = []
    for spec, entry in zip(specs, entries, strict=True):
        told += entries_of(entry, is_array=spec.elements is not None)
    return told


def _answer(
    ids: range, group: int, entries: list[tuple[int, int]], note: str | None, *, is_new: bool = True
) -> Answer:
    return {
        "first": ids.start,
        "count": len(ids),
        "group": f"g{group}",
        "entries": entries,
        "note": note,
        "is_new": is_new,
    }


def _group(request: Mapping[str, Any]) -> int | None:
    """The group that is to be added to, as an answer named it: "g12"."""
    group = request.get("group")
    if group is None:
        return None
    digits = group.removeprefix("g") if isinstance(group, str) else ""
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise UsageError(f"group: {group!r} is no group, which is named like g12")
    return int(digits)


def _joined(*notes: str | None) -> str | None:
    return "; ".join(said for said in notes if said is not None) or None


def _key(specs: Sequence[Spec], request: Mapping[str, Any]) -> str | None:
    """The key of a submission, which is that of a single job, or of a whole array."""
    keys = [spec.key for spec in specs if spec.key is not None]
    if keys and (len(specs) > 1 or request.get("group") is not None):
        raise UsageError(
            "key: it names one job or one array; submit the jobs one by one, each with its own"
        )
    return keys[0] if keys else None


def _check_priority(specs: Sequence[Spec], peer: Peer) -> None:
    highest = max(spec.priority for spec in specs)
    if highest > 0 and not peer.is_admin:
        raise NotPermitted(
            f"only an admin may submit with a priority above 0, and {highest} was asked for; "
            "use -p 0, or less. Nothing was queued."
        )
