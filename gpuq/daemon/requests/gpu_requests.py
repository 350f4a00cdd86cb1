"""Requests about GPUs: drain one, have it back, test some, ask why. As all handlers these store wishes
and touch no GPU and no process."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from gpuq.core.asked.moments import words_for
from gpuq.core.gpus.condition import assess
from gpuq.core.gpus.gpu import Gpu, GpuState
from gpuq.core.gpus.gpu_account import GpuPast, explain_gpu
from gpuq.core.model import GpuHealth, Lease
from gpuq.core.policy import Policy
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.clock import Clock
from gpuq.daemon.gpus.backend import is_identified
from gpuq.daemon.requests import fields, views
from gpuq.daemon.requests.gpu_refs import find_gpus
from gpuq.daemon.store import Store
from gpuq.daemon.store.health import HealthRow
from gpuq.errors import UsageError

Answer = dict[str, Any]
Request = Mapping[str, Any]


class GpuWorld(Protocol):
    """What is known of GPUs: the last reading with what speaks against each, and their health."""

    @property
    def gpus(self) -> Sequence[Gpu] | None: ...
    @property
    def gpu_trouble(self) -> str | None: ...
    @property
    def health(self) -> Sequence[GpuHealth]: ...
    def wish_tests(self, uuids: Sequence[str], actor: str) -> None: ...
    def wake(self) -> None: ...
    async def settle(self) -> None: ...


class GpuRequests:
    """`known` gives every GPU that this machine has shown, `policy` the settings in force, `discretion`
    what somebody may see, `reservations` those of each GPU, by uuid."""

    def __init__(
        self,
        store: Store,
        world: GpuWorld,
        policy: Callable[[], Policy],
        known: Callable[[], Sequence[Gpu]],
        discretion: Callable[[Peer], Discretion],
        reservations: Callable[[], Mapping[str, list[Answer]]] = dict,
    ) -> None:
        self._store = store
        self._world = world
        self._policy = policy
        self._known = known
        self._discretion = discretion
        self._reservations = reservations
        self._clock = Clock()

    def views(self, peer: Peer) -> list[Answer]:
        """Every GPU as that caller sees it."""
        told = self._discretion(peer).gpu
        leases, policy = self._store.current.leases(), self._policy()
        rows, under_test = self._store.health.rows(), self._under_test()
        reserved = self._reservations()
        return [
            views.gpu_view(
                told(gpu), leases, policy, rows.get(gpu.uuid), under_test=under_test.get(gpu.uuid)
            )
            | {"reservations": reserved.get(gpu.uuid, [])}
            for gpu in self._world.gpus or ()
        ]

    async def drain(self, request: Request, peer: Peer) -> Answer:
        """These GPUs are given to nobody any more, for a reason; what runs on them goes on."""
        gpus = self._named(request, peer, "drain")
        reason = fields.reason(request)
        now = time.time()
        with self._store.transaction():
            for gpu in gpus:
                self._store.wished.drain_gpu(gpu.uuid, reason, actor=peer.user, now=now)
        self._world.wake()
        return {"gpus": [self._answer(gpu, "drained", reason) for gpu in gpus]}

    async def resume(self, request: Request, peer: Peer) -> Answer:
        """These GPUs are to be given out again: those that are drained at once, those that are set
        aside after a good test, or without one (`untested`)."""
        gpus = self._named(request, peer, "resume")
        untested = bool(request.get("untested"))
        now = time.time()
        with self._store.transaction():
            done = [
                self._store.wished.resume_gpu(gpu.uuid, untested=untested, actor=peer.user, now=now)
                for gpu in gpus
            ]
        self._world.wake()
        await self._world.settle()
        return {"gpus": [self._resumed(gpu, *one) for gpu, one in zip(gpus, done, strict=True)]}

    def _resumed(self, gpu: Gpu, drained: bool, wished: bool) -> Answer:
        """What has come of it by now."""
        row = self._store.health.rows().get(gpu.uuid)
        if not wished:
            return self._answer(gpu, "resumed" if drained else "nothing", None)
        if row is None or row.quarantine is None:
            return self._answer(gpu, "readmitted", None)
        if gpu.uuid in self._under_test():
            return self._answer(gpu, "testing", row.quarantine)
        return self._answer(gpu, "waits", self._why_not_idle(gpu) or row.quarantine)

    async def test(self, request: Request, peer: Peer) -> Answer:
        """The GPUs that are named, or all, are to be tested now, those of them that are idle."""
        peer.require_admin("have GPUs tested")
        chosen = list(self._world.gpus or ())
        if fields.named(request):
            chosen = find_gpus(fields.named(request), chosen)
        tested_before = {uuid: row.tested_at for uuid, row in self._store.health.rows().items()}
        self._world.wish_tests([gpu.uuid for gpu in chosen], peer.user)
        await self._world.settle()
        rows, under_test = self._store.health.rows(), self._under_test()
        answers = []
        for gpu in chosen:
            before, row = tested_before.get(gpu.uuid), rows.get(gpu.uuid)
            is_begun = gpu.uuid in under_test or (row is not None and row.tested_at != before)
            why = None if is_begun else self._why_not_idle(gpu) or "it was not idle a moment ago"
            done = "testing" if is_begun else "busy"
            answers.append(self._answer(gpu, done, why) | {"tested_before": before})
        return {"gpus": answers}

    async def why(self, request: Request, peer: Peer) -> Answer:
        """All about one GPU, in sentences."""
        gpus = find_gpus([request.get("ref") or ""], self._known())
        if len(gpus) > 1:
            raise UsageError("one GPU at a time: gpuq why gpu:3")
        (gpu,) = gpus
        row = self._store.health.rows().get(gpu.uuid)
        health = next((one for one in self._world.health if one.gpu == gpu.uuid), None)
        told = explain_gpu(
            self._discretion(peer).gpu(gpu),
            self._leases_on(gpu),
            self._policy(),
            health or GpuHealth(gpu=gpu.uuid),
            _past(row, time.time()),
            boottime=self._clock.boottime(),
        )
        told += [_reservation_words(one) for one in self._reservations().get(gpu.uuid, [])]
        if (trouble := self._world.gpu_trouble) is not None:
            told = [f"There is no reading just now, and what follows is older: {trouble}.", *told]
        return {"sentences": told, "gpu": gpu.uuid}

    def _named(self, request: Request, peer: Peer, verb: str) -> list[Gpu]:
        peer.require_admin(f"{verb} a GPU")
        return find_gpus(
            fields.named(request), [one for one in self._known() if is_identified(one)]
        )

    def _under_test(self) -> dict[str, str]:
        known = self._world.health
        return {one.gpu: one.under_test for one in known if one.under_test is not None}

    def _why_not_idle(self, gpu: Gpu) -> str | None:
        """What keeps a test from it, whatever gpuq itself holds against it."""
        now = next((one for one in self._world.gpus or () if one.uuid == gpu.uuid), None)
        if now is None:
            return "it is not there"
        held = self._leases_on(now)
        health = next((one for one in self._world.health if one.gpu == gpu.uuid), None)
        if health is None:
            return "it cannot be known again by its UUID"
        state, reason = assess(replace(now, bar=None), held, self._policy())
        if state is GpuState.LEASED:
            return f"job {held[0].job} has it"
        return None if state is GpuState.FREE else reason

    def _leases_on(self, gpu: Gpu) -> list[Lease]:
        return [lease for lease in self._store.current.leases() if lease.gpu == gpu.uuid]

    def _answer(self, gpu: Gpu, done: str, reason: str | None) -> Answer:
        jobs = sorted({lease.job for lease in self._leases_on(gpu)})
        return {
            "index": gpu.index,
            "uuid": gpu.uuid,
            "simulated": gpu.simulated,
            "done": done,
            "reason": reason,
            "jobs": jobs,
        }


def _reservation_words(one: Answer) -> str:
    """ "It is reserved for alice from 18:00 to 06:00 (tomorrow): a deadline. End it: …"."""
    here = datetime.now()
    begin, end = (
        words_for(datetime.fromtimestamp(one[name]), here) for name in ("begin_at", "end_at")
    )
    reason = f": {one['reason']}" if one["reason"] else ""
    span = f"until {end}" if one["active"] else f"from {begin} to {end}"
    cancel = f"gpuq reserve --cancel {one['id']}"
    return (
        f"It is reserved for {one['user']} {span}{reason} (by {one['actor']}). End that: {cancel}"
    )


def _past(row: HealthRow | None, now: float) -> GpuPast:
    if row is None:
        return GpuPast()

    def age_s(at: float | None) -> float | None:
        return None if at is None else max(now - at, 0.0)

    return GpuPast(
        drained_s=age_s(row.drained_at),
        quarantined_s=age_s(row.quarantined_at),
        tested_s=age_s(row.tested_at),
        test=row.test_result,
    )
