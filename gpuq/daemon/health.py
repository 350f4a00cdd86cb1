"""How well the GPUs are, as this daemon knows it: what is stored of them, tests under way, and what the
driver told since. Part of the loop and on its thread; the core says what follows from it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from gpuq.core.decisions import Readmit, SetAsideGpu, TestGpu
from gpuq.core.gpus.breaker import bar_of, is_of_hardware, judge_test
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Drain, GpuHealth, Lease, ResumeWish
from gpuq.core.policy import Policy
from gpuq.daemon.clock import Clock
from gpuq.daemon.gpus.locks import GpuLocks
from gpuq.daemon.linux import processes
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.store.health import HealthRow
from gpuq.daemon.testing import Child, Examined, GpuTests

KEPT_CHILDREN = "gpu_tests"

log = structlog.get_logger()

# The uuid and the index of a GPU, its XIDs, and the attempts that had it.
_Told = tuple[str, int, tuple[int, ...], tuple[tuple[int, int], ...]]


class HealthWatch:
    """`wake` is called where a test has ended, `veto` with GPUs that others turn out to have locked."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        locks: GpuLocks,
        spec_text: str,
        *,
        wake: Callable[[], None],
        veto: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._locks = locks
        self._veto = veto
        self._boot_id = processes.boot_id()
        self._tried: dict[str, float] = {}  # when last tested or set aside, CLOCK_BOOTTIME
        self._told: dict[str, int] = {}  # XIDs of the GPUs' own, not acted on yet
        self._told_meanwhile: dict[str, int] = {}  # the first such XID since its test began
        self._unstored: dict[_Told, float] = {}  # what the disk refused, and when it was told
        self._wished: dict[str, str] = {}  # tests, and by whom
        self._simulated: set[str] = set()  # those that were tested
        self._well: frozenset[object] = frozenset()  # what the last reading said
        self._last_rows: Mapping[str, HealthRow] | None = None  # what `known` was last made of
        self._last_told: object = None
        self._last_known: tuple[GpuHealth, ...] = ()
        self._tests = GpuTests(
            spec_text,
            wake=wake,
            on_started=self._note_children,
            previous=self._previous_children(),
        )
        self.run = self._tests.run
        self.pids_of_tests = self._tests.pids

    # ── what is the case ──

    def known(self) -> tuple[GpuHealth, ...]:
        """Of each GPU that this machine has shown."""
        rows, under_way = self._store.health.rows(), self._tests.under_way
        told = (under_way, dict(self._wished), dict(self._tried))
        if rows is not self._last_rows or told != self._last_told:
            self._last_known = tuple(
                self._health_of(row, under_way.get(uuid)) for uuid, row in rows.items()
            )
            self._last_rows, self._last_told = rows, told
        return self._last_known

    def barred(
        self, gpus: Sequence[Gpu] | None, known: Sequence[GpuHealth], policy: Policy
    ) -> tuple[Gpu, ...] | None:
        """The GPUs as they were read, with what speaks against giving them out."""
        if gpus is None:
            return None
        by_gpu = {health.gpu: health for health in known}
        return tuple(self._with_bar(gpu, by_gpu.get(gpu.uuid), policy) for gpu in gpus)

    def held(self) -> list[Lease]:
        """GPUs under test are held like leased ones, though by no job."""
        return [
            Lease(gpu=uuid, slot=0, job=0, attempt=0, exclusive=True)
            for uuid in self._tests.under_way
        ]

    def held_on_real_gpus(self) -> list[Lease]:
        """Those that other daemons of this machine have to respect."""
        return [lease for lease in self.held() if lease.gpu not in self._simulated]

    def _health_of(self, row: HealthRow, under_test: str | None) -> GpuHealth:
        drain = None
        if row.drained_by is not None:
            drain = Drain(actor=row.drained_by, reason=row.drain_reason or "")
        resume = None
        if row.resume_asked_at is not None and row.resume_asked_at != row.resumed_at:
            actor = row.resume_actor or "somebody"
            resume = ResumeWish(actor=actor, untested=row.resume_untested)
        return GpuHealth(
            gpu=row.gpu,
            quarantine=row.quarantine,
            is_lasting=row.is_lasting and row.boot_id == self._boot_id,
            accepted=row.accepted,
            fast_failures=row.fast_failures,
            failed_tests=row.failed_tests,
            tried_at=self._tried_at(row),
            under_test=under_test,
            drain=drain,
            resume=resume,
            test_wished_by=self._wished.get(row.gpu),
        )

    def _tried_at(self, row: HealthRow) -> float | None:
        """What an earlier daemon did is known by the wall clock alone, which somebody may have set back
        since: then it counts as done just now."""
        last_at = max((at for at in (row.tested_at, row.quarantined_at) if at), default=None)
        if row.gpu not in self._tried and last_at is not None:
            past_s = max(self._clock.wall() - last_at, 0.0)
            self._tried[row.gpu] = self._clock.boottime() - past_s
        return self._tried.get(row.gpu)

    def _with_bar(self, gpu: Gpu, health: GpuHealth | None, policy: Policy) -> Gpu:
        if health is None:
            return gpu
        told = self._told.get(gpu.uuid)
        xids = () if told is None else (told,)
        bar = bar_of(gpu, health, policy)
        return gpu if bar is None and xids == gpu.xids else replace(gpu, bar=bar, xids=xids)

    # ── news ──

    def take_reading(self, gpus: Sequence[Gpu], leases: Sequence[Lease]) -> bool:
        """True where it says something of a GPU's health that the last one did not."""
        for gpu in gpus:
            if gpu.xids:
                self._hear_xids(gpu, leases)
        well = frozenset((g.uuid, g.fault, g.is_lasting, g.defect, g.warnings) for g in gpus)
        is_news = well != self._well or bool(self._told) or bool(self._unstored)
        self._well = well
        return is_news

    def _hear_xids(self, gpu: Gpu, leases: Sequence[Lease]) -> None:
        log.warning("the driver tells of errors", gpu=gpu.uuid, index=gpu.index, xids=gpu.xids)
        own = [xid for xid in gpu.xids if is_of_hardware(xid)]
        if own:
            # A test that hangs has no end any more at which it could be heard.
            awaited = self._tests.is_end_awaited(gpu.uuid)
            heard = self._told_meanwhile if awaited else self._told
            heard.setdefault(gpu.uuid, own[0])
        if had := {(lease.job, lease.attempt) for lease in leases if lease.gpu == gpu.uuid}:
            told = (gpu.uuid, gpu.index, tuple(gpu.xids), tuple(sorted(had)))
            self._unstored.setdefault(told, self._clock.wall())
        try:
            self._store_xids()
        except DiskTrouble as trouble:
            log.error("errors of a GPU cannot be stored yet", why=str(trouble))

    def _store_xids(self) -> None:
        for told, at in list(self._unstored.items()):
            self._store.health.tell_xids(*told, now=at)
            del self._unstored[told]

    def wish_tests(self, uuids: Sequence[str], actor: str) -> None:
        """Somebody wants these GPUs tested now. A GPU that is not idle by then is left alone."""
        self._wished |= dict.fromkeys(uuids, actor)

    def take_in(self, gpus: Sequence[Gpu] | None) -> bool:
        """Writes down the tests that have ended; False where there were none. What the disk refuses,
        or has refused of XIDs, is kept for the next time."""
        self._store_xids()
        ended = self._tests.ended
        by_uuid = {gpu.uuid: gpu for gpu in gpus or ()}
        acted = bool(ended)
        while ended:
            tested = self._with_xids(ended[0])
            self._write_down(tested, by_uuid.get(tested.gpu))
            ended.popleft()
            self._told_meanwhile.pop(tested.gpu, None)
            self._tests.settle(tested.gpu)
        return acted

    def _with_xids(self, tested: Examined) -> Examined:
        xid = self._told_meanwhile.get(tested.gpu)
        if xid is None or tested.verdict == "bad":
            return tested
        return replace(tested, verdict="bad", trouble=f"the driver told of XID {xid} meanwhile")

    def _write_down(self, tested: Examined, gpu: Gpu | None) -> None:
        trouble = tested.trouble if tested.verdict == "bad" else None
        result: dict[str, Any] = {"verdict": tested.verdict, **tested.result}
        if tested.trouble is not None:
            result["trouble"] = tested.trouble
        log.info("a GPU was tested", gpu=tested.gpu, **result)
        health = next((one for one in self.known() if one.gpu == tested.gpu), None)
        if health is None:  # it is remembered no more
            return
        verdict = judge_test(health, gpu, is_good=tested.verdict == "good", trouble=trouble)
        with self._store.transaction():
            self._store.health.tested(tested.gpu, trouble, result, now=self._clock.wall())
            if verdict is not None:
                self._set_aside_or_readmit(verdict)
        self._tried[tested.gpu] = self._clock.boottime()

    # ── what was decided ──

    def carry_out(self, decision: SetAsideGpu | TestGpu | Readmit, gpus: Sequence[Gpu]) -> None:
        if not isinstance(decision, TestGpu):
            self._set_aside_or_readmit(decision)
            return
        gpu = next(gpu for gpu in gpus if gpu.uuid == decision.gpu)
        self._wished.pop(gpu.uuid, None)
        try:
            if gpu.simulated:
                self._simulated.add(gpu.uuid)
            elif refused := self._locks.take([gpu.uuid]):
                self._veto(refused)
                return
        except OSError as error:
            trouble = f"the GPU could not be locked: {error.strerror}"
            self._tests.decline(gpu, decision.why, trouble)
            return
        log.info("testing a GPU", gpu=gpu.uuid, index=gpu.index, why=decision.why)
        self._tests.begin(gpu, decision.why)

    def forget_considered(self, known: Sequence[GpuHealth]) -> None:
        """A test that was wished when a decision was made has begun, or is not to be had now; and of a
        GPU that is set aside the driver need not tell any more."""
        for health in known:
            if health.test_wished_by is not None:
                self._wished.pop(health.gpu, None)
            if health.quarantine is not None:
                self._told.pop(health.gpu, None)

    def _set_aside_or_readmit(self, decision: SetAsideGpu | Readmit) -> None:
        gpu, now = decision.gpu, self._clock.wall()
        if isinstance(decision, Readmit):
            log.info("a GPU is given out again", gpu=gpu, why=decision.why)
            self._store.health.readmit(gpu, decision.why, accepts=decision.accepts, now=now)
        else:
            log.warning("a GPU is set aside", gpu=gpu, why=decision.reason)
            self._store.health.set_aside(
                gpu,
                decision.reason,
                is_lasting=decision.is_lasting,
                boot_id=self._boot_id,
                now=now,
            )
            self._tried[gpu] = self._clock.boottime()
        self._told.pop(gpu, None)

    # ── children ──

    def _note_children(self, children: Sequence[Child]) -> None:
        """For the next daemon, which must not test a GPU in whose driver one of them hangs."""
        try:
            self._store.machine.note(KEPT_CHILDREN, [self._boot_id, *children])
        except DiskTrouble as trouble:
            log.error("the tests under way could not be noted", why=str(trouble))

    def _previous_children(self) -> list[Child]:
        boot_id, *children = self._store.machine.fact(KEPT_CHILDREN) or [None]
        return [(uuid, pid, start) for uuid, pid, start in children if boot_id == self._boot_id]
