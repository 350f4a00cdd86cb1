"""Submissions: read, judged, and stored in one transaction with all that they depend on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpuq.config import BESIDE_SYSTEM, Config
from gpuq.core.bounds import weaker_promise
from gpuq.core.fitting import never_fits
from gpuq.core.gpu import Gpu
from gpuq.core.learned import Resolved, resolve
from gpuq.core.learned import note as learned_note
from gpuq.core.spec import Spec, read_spec
from gpuq.core.user_limits import more_than_allowed, too_many_queued
from gpuq.daemon import faults, fields
from gpuq.daemon.callers.limits import hard_limits
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.commits import GroupCommit
from gpuq.daemon.known_gpus import KnownGpus
from gpuq.daemon.store import Store
from gpuq.daemon.store.asked import Submitter
from gpuq.daemon.world import World
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

    async def submit(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Answers only once the jobs are on disk."""
        self._check_is_no_root(peer)
        token = fields.token(request)
        if token is not None and (ids := self._store.asked.answered(peer.uid, token)):
            return {"first": ids.start, "count": len(ids), "group": f"g{ids.start}", "note": None}
        await self._world.first_reading(FIRST_READING_S)
        specs, note = self._read_specs(request, peer.uid)
        note = await self._with_promise(note, specs)
        _check_priority(specs, peer)
        key = _key(specs)
        digest = specs[0].environment
        content = fields.environment(request, digest)
        if content is None and not self._store.asked.knows_environment(peer.uid, digest):
            return {"wanted": "environment"}
        limits = hard_limits(peer) if self._config.mode == "system" else {}
        by = Submitter(peer.uid, peer.gid, peer.user, limits)

        living: int | None = None

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
                return range(living, living + 1)
            self._check_room(peer, len(specs))
            faults.here("submit.storing")
            return self._store.asked.submit(by, specs, now=time.time(), token=token)

        ids = await self._commits.run(deed)
        if ids is None:
            return {"wanted": "environment"}
        faults.here("submit.committed")
        self._world.wake()
        if living is not None:
            note = f"job {living} has the key {key!r} and has not ended: nothing was queued"
        return {"first": ids.start, "count": len(ids), "group": f"g{ids.start}", "note": note}

    async def _with_promise(self, note: str | None, specs: Sequence[Spec]) -> str | None:
        """And what those who bound their job have to know of that."""
        bounds = [spec.bounds for spec in specs if spec.bounds]
        weaker = weaker_promise(bounds, await self._world.enforcement()) if bounds else None
        return "; ".join(said for said in (note, weaker) if said is not None) or None

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

    def _read_specs(self, request: Mapping[str, Any], uid: int) -> tuple[list[Spec], str | None]:
        jobs = request.get("jobs")
        if not isinstance(jobs, list) or not 0 < len(jobs) <= MOST_JOBS_PER_SUBMIT:
            raise UsageError(f"jobs: a list of 1 to {MOST_JOBS_PER_SUBMIT} jobs is wanted")
        known = self._machine.gpus()
        # What the machine once had, it has. A driver that only fails just now may show some yet: a
        # job that wants a GPU waits for that, and does not run without one.
        judged = self._world.gpus is not None or self._world.has_no_driver or bool(known)
        gpuless = judged and not known
        default = 0 if gpuless else self._config.default_gpus
        specs = []
        learned: list[Resolved] = []
        for job in jobs:
            if not isinstance(job, dict):
                raise UsageError("jobs: each job is an object")
            wire = job | {"env_hash": request.get("env_hash")}
            spec = read_spec(wire, default_gpus=default, grace_s=self._config.grace, machine=known)
            if spec.gpu_mem_auto:
                learned.append(self._resolve_memory(spec, uid, known))
                spec = replace(spec, request=learned[-1].request, gpu_mem_from=learned[-1].words)
            if (never := more_than_allowed(spec.request, self._config.policy())) is not None:
                raise NeverFits(f"the job can never start: it {never}. Nothing was queued.")
            why = never_fits(spec.request, known, self._config.policy())
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

    def _resolve_memory(self, spec: Spec, uid: int, machine: Sequence[Gpu]) -> Resolved:
        known = self._store.learned.known(uid, spec.argv, spec.cwd, spec.name)
        return resolve(spec.request, known, machine, self._config.policy())


def _key(specs: Sequence[Spec]) -> str | None:
    """The key of a submission, which is a single job's."""
    keys = [spec.key for spec in specs if spec.key is not None]
    if keys and len(specs) > 1:
        raise UsageError("key: it names one job; submit the jobs one by one, each with its own")
    return keys[0] if keys else None


def _check_priority(specs: Sequence[Spec], peer: Peer) -> None:
    highest = max(spec.priority for spec in specs)
    if highest > 0 and not peer.is_admin:
        raise NotPermitted(
            f"only an admin may submit with a priority above 0, and {highest} was asked for; "
            "use -p 0, or less. Nothing was queued."
        )
