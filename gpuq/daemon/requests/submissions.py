"""Submissions: read, judged, and stored in one transaction with all that they depend on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpuq.config import BESIDE_SYSTEM, Config
from gpuq.core.asked.spec import Spec, read_spec
from gpuq.core.asked.spec_array import check_size
from gpuq.core.ends.bounds import weaker_promise
from gpuq.core.gpus.fitting import never_fits
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.learned import Resolved, resolve
from gpuq.core.gpus.learned import note as learned_note
from gpuq.core.model import Request
from gpuq.core.results.giving_up import parse_on_failure
from gpuq.core.scheduling.durations import lasts_s
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
from gpuq.daemon.requests.needing import Needing, check_number
from gpuq.daemon.requests.queue_rules import check_limits, groups_in_queues, in_queue, within_queue
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.asked import Submitter
from gpuq.daemon.store.begin import Boot
from gpuq.errors import GpuqError, NeverFits, NotPermitted, UsageError

FIRST_READING_S = 5.0  # how long a submit waits for the GPUs to be known
MOST_JOBS_PER_SUBMIT = 10_000

Answer = dict[str, Any]


class Submissions:
    """`machine` is every GPU that it has shown."""

    def __init__(self, store: Store, config: Config, world: World, machine: KnownGpus) -> None:
        self._store = store
        self._config = config
        self._world = world
        self._machine = machine
        self._commits = GroupCommit(store)
        self._clock = Clock()
        self._boot_id = processes.boot_id()
        self._dry_runs = DryRuns(store, world)
        self._needing = Needing(store.found)

    async def submit(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Answers only once the jobs are on disk; or (`dry`) with what would become of them, and
        nothing is stored."""
        self._check_is_no_root(peer)
        is_dry = bool(request.get("dry"))
        token = None if is_dry else fields.token(request)
        if token is not None and (ids := self._store.asked.answered(peer.uid, token)):
            return self._answer(ids, None)
        group = _group(request)
        await self._world.first_reading(FIRST_READING_S)
        groups = await groups_in_queues(self._config.policy(), peer)
        specs, note = self._read_specs(request, peer, groups)
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
        if content is None and not self._store.asked.knows_environment(peer.uid, digest):
            return {"wanted": "environment"}
        limits = hard_limits(peer) if self._config.mode == "system" else {}
        by = Submitter(peer.uid, peer.gid, peer.user, limits)

        living: range | None = None

        def deed() -> range | None:
            nonlocal living
            if content is not None:
                self._store.asked.keep_environment(peer.uid, digest, content)
            elif not self._store.asked.knows_environment(peer.uid, digest):
                return None  # forgotten meanwhile, since no job had it any more
            if token is not None and (ids := self._store.asked.answered(peer.uid, token)):
                return ids  # the same submit twice within one commit
            living = None if key is None else self._store.asked.living(peer.uid, key)
            if living is not None:
                return living
            self._check_room(peer, sum(spec.count for spec in specs))
            faults.here("submit.storing")
            boot = Boot(id=self._boot_id, boottime=self._clock.boottime())
            now = self._clock.wall()
            return self._store.asked.submit(
                by,
                specs,
                now=now,
                token=token,
                group=group,
                boot=boot,
                stop_after=parse_on_failure(self._config.on_failure),
            )

        ids = await self._commits.run(deed)
        if ids is None:
            return {"wanted": "environment"}
        faults.here("submit.committed")
        self._world.wake()
        if key is not None and living is not None:
            note = f"{key_is_taken(key, living)}: nothing was queued"
        return self._answer(ids, note, is_new=living is None)

    def _answer(self, ids: range, note: str | None, *, is_new: bool = True) -> Answer:
        return {
            "first": ids.start,
            "count": len(ids),
            "group": f"g{self._store.asked.group_of(ids.start)}",
            "entries": [list(entry) for entry in self._store.asked.entries(ids)],
            "note": note,
            "is_new": is_new,
        }

    async def dry_run(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """A request of its own, so that a daemon that does not know it queues nothing."""
        return await self.submit({**request, "dry": True}, peer)

    async def read_specs(
        self, jobs: Sequence[Answer], env_hash: str, peer: Peer, *, judged: bool
    ) -> list[Spec]:
        """Reads jobs as a submit does, and stores nothing. `judged`: also whether they can start here,
        and in that queue."""
        if not judged:
            usual = {"default_gpus": int(self._config.default_gpus), "grace_s": self._config.grace}
            machine = self._machine.gpus()
            return [
                read_spec({**job, "env_hash": env_hash}, **usual, machine=machine) for job in jobs
            ]
        await self._world.first_reading(FIRST_READING_S)
        groups = await groups_in_queues(self._config.policy(), peer)
        request = {"jobs": list(jobs), "env_hash": env_hash}
        return self._read_specs(request, peer, groups)[0]

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

    def _read_specs(
        self, request: Mapping[str, Any], peer: Peer, groups: frozenset[str]
    ) -> tuple[list[Spec], str | None]:
        jobs = request.get("jobs")
        if not isinstance(jobs, list) or not 0 < len(jobs) <= MOST_JOBS_PER_SUBMIT:
            raise UsageError(f"jobs: a list of 1 to {MOST_JOBS_PER_SUBMIT} jobs is wanted")
        known = self._machine.gpus()
        # What the machine once had, it has. A driver that only fails just now may show some yet: a
        # job that wants a GPU waits for that, and does not run without one.
        judged = self._world.gpus is not None or self._world.has_no_driver or bool(known)
        gpuless = judged and not known
        default = 0 if gpuless else self._config.default_gpus
        limits = self._store.limited.of_users_and_tags()
        specs: list[Spec] = []
        learned: list[Resolved] = []
        elements = rows = needs = 0
        for job in jobs:
            if not isinstance(job, dict):
                raise UsageError("jobs: each job is an object")
            wire = job | {"env_hash": request.get("env_hash")}
            spec = read_spec(wire, default_gpus=default, grace_s=self._config.grace, machine=known)
            elements, rows = elements + spec.count, rows + len(spec.rows)
            check_size(elements, rows)
            spec = in_queue(spec, self._config.policy(), peer, groups)
            if job.get("after"):
                spec = replace(spec, needs=self._needing.read(job, spec, specs, peer))
                check_number(needs := needs + len(spec.needs))
            if spec.gpu_mem_auto:
                learned.append(self._resolve_memory(spec, peer.uid, known))
                spec = replace(spec, request=learned[-1].request, gpu_mem_from=learned[-1].words)
            spec = replace(spec, request=self._with_duration(spec, peer.uid))
            check_limits(spec, peer, self._config.policy(), limits)
            why = never_fits(spec.request, known, self._config.policy())
            why = why or within_queue(spec, known, self._config.policy())
            if why is not None and (judged or not spec.request.gpus):
                trouble = self._why_gpuless() if gpuless and spec.request.gpus else None
                because = f" ({trouble})" if trouble else ""
                raise NeverFits(f"{why}{because}. Nothing was queued.")
            specs.append(spec)
        says_nothing = gpuless and any("gpus" not in job for job in jobs)
        here = "this daemon of yours" if self._is_beside_system else "this machine"
        note = f"{here} has no GPU, so the job gets none" if says_nothing else None
        return specs, note or learned_note(learned)

    @property
    def _is_beside_system(self) -> bool:
        return self._config.origin("gpus") == BESIDE_SYSTEM

    def _why_gpuless(self) -> str | None:
        if self._is_beside_system:
            return "those of this machine are the system daemon's; this one of yours has none"
        return self._world.gpu_trouble

    def _with_duration(self, spec: Spec, uid: int) -> Request:
        """And how long it runs at the most, as far as anybody knows."""
        before = self._store.durations.known(uid, spec.argv, spec.cwd, spec.name)
        return replace(spec.request, lasts_s=lasts_s(spec.time_limit_s, before))

    def _resolve_memory(self, spec: Spec, uid: int, machine: Sequence[Gpu]) -> Resolved:
        known = self._store.learned.known(uid, spec.argv, spec.cwd, spec.name)
        return resolve(spec.request, known, machine, self._config.policy())


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
