"""The jobs of a submission as Specs: read, judged by what there is to run them on, and with what is
known of their commands. Nothing is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpuq.config import BESIDE_SYSTEM, Config
from gpuq.core.asked.commands import Command, read_commands
from gpuq.core.asked.spec import Spec, read_spec
from gpuq.core.asked.spec_array import check_size
from gpuq.core.asked.wire_fields import read_integer, read_list, split
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.learned import Resolved, resolve
from gpuq.core.gpus.learned import note as learned_note
from gpuq.core.model import Request
from gpuq.core.scheduling.durations import lasts_s
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.judging import Judging
from gpuq.daemon.requests.known_gpus import KnownGpus
from gpuq.daemon.requests.needing import Needing, check_number
from gpuq.daemon.requests.queue_rules import in_queue
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.learned import command_hash
from gpuq.errors import NeverFits, UsageError

MOST_JOBS_PER_SUBMIT = 10_000


class Reading:
    """`machine` is every GPU that it has shown."""

    def __init__(self, store: Store, config: Config, world: World, machine: KnownGpus) -> None:
        self._store = store
        self._config = config
        self._world = world
        self._machine = machine
        self._needing = Needing(store.found)
        self._judging = Judging(store, config, world, machine)

    def read_all(
        self, request: Mapping[str, Any], peer: Peer, groups: frozenset[str]
    ) -> tuple[list[Spec], str | None]:
        """Those of a request, and what there is to know of them. UsageError and NeverFits say what is
        wrong with one; `groups` are the peer's, as far as a queue asks for them."""
        jobs = request.get("jobs")
        if not isinstance(jobs, list) or not 0 < len(jobs) <= MOST_JOBS_PER_SUBMIT:
            raise _unfit_list()
        grounds = self._judging.grounds()
        known, policy = grounds.known, grounds.policy
        # What the machine once had, it has. A driver that only fails just now may show some yet: a
        # job that wants a GPU waits for that, and does not run without one.
        judged = grounds.were_read or self._world.has_no_driver or bool(known)
        gpuless = judged and not known
        default = 0 if gpuless else self._config.default_gpus
        specs: list[Spec] = []
        learned: list[Resolved] = []
        size = _Size()
        for job in jobs:
            if not isinstance(job, dict):
                raise UsageError("jobs: each job is an object")
            wire = job | {"env_hash": request.get("env_hash")}
            spec = read_spec(wire, default_gpus=default, grace_s=self._config.grace, machine=known)
            if request.get("alike"):
                spec = _repeated(spec, job)
            size.add(spec)
            spec = in_queue(spec, policy, peer, groups)
            if job.get("after"):
                spec = replace(spec, needs=self._needing.read(job, spec, specs, peer))
                size.add_needs(spec)
            if spec.gpu_mem_auto:
                learned += [self._resolve_memory(spec, peer.uid, known)] * spec.times
                spec = replace(spec, request=learned[-1].request, gpu_mem_from=learned[-1].words)
            spec = self._with_duration(spec, peer.uid)
            why = grounds.trouble(spec, peer)
            if why is not None and (judged or not spec.request.gpus):
                trouble = self._why_gpuless() if gpuless and spec.request.gpus else None
                because = f" ({trouble})" if trouble else ""
                raise NeverFits(f"{why}{because}. Nothing was queued.")
            specs.append(spec)
        says_nothing = gpuless and any("gpus" not in job for job in jobs)
        here = "this daemon of yours" if self._is_beside_system else "this machine"
        note = f"{here} has no GPU, so the job gets none" if says_nothing else None
        return specs, note or learned_note(learned)

    def read_unjudged(self, jobs: Sequence[Mapping[str, Any]], env_hash: str) -> list[Spec]:
        """As they are written, whether they can start here or not."""
        usual = {"default_gpus": int(self._config.default_gpus), "grace_s": self._config.grace}
        machine = self._machine.gpus()
        return [read_spec({**job, "env_hash": env_hash}, **usual, machine=machine) for job in jobs]

    @property
    def _is_beside_system(self) -> bool:
        return self._config.origin("gpus") == BESIDE_SYSTEM

    def _why_gpuless(self) -> str | None:
        if self._is_beside_system:
            return "those of this machine are the system daemon's; this one of yours has none"
        return self._world.gpu_trouble

    def _with_duration(self, spec: Spec, uid: int) -> Spec:
        """And how long it runs at the most, as far as anybody knows."""
        before = self._store.durations.known(uid, spec.argv, spec.cwd, spec.name)
        longest_s = lasts_s(spec.time_limit_s, before)
        if longest_s != spec.request.lasts_s:
            spec = replace(spec, request=replace(spec.request, lasts_s=longest_s))
        return replace(spec, commands=self._with_durations(spec, uid)) if spec.commands else spec

    def _with_durations(self, spec: Spec, uid: int) -> tuple[Command, ...]:
        """The same of its further commands."""
        if spec.time_limit_s is not None or not (known := self._store.durations.known_of_all(uid)):
            return spec.commands
        requests: dict[float | None, Request] = {}
        timed = []
        for command in spec.commands:
            ran = known.get(command_hash(split(command.argv), spec.cwd, command.name))
            longest_s = lasts_s(None, ran)
            if longest_s not in requests:
                requests[longest_s] = replace(spec.request, lasts_s=longest_s)
            timed.append(Command(command.argv, command.name, requests[longest_s]))
        return tuple(timed)

    def _resolve_memory(self, spec: Spec, uid: int, machine: Sequence[Gpu]) -> Resolved:
        known = self._store.learned.known(uid, spec.argv, spec.cwd, spec.name)
        return resolve(spec.request, known, machine, self._config.policy())


class _Size:
    """How much was read so far, which may be no more than one submission holds."""

    def __init__(self) -> None:
        self._jobs = self._elements = self._rows = self._needs = 0

    def add(self, spec: Spec) -> None:
        self._jobs += spec.times + len(spec.commands)
        if self._jobs > MOST_JOBS_PER_SUBMIT:
            raise _unfit_list()
        self._elements, self._rows = self._elements + spec.count, self._rows + len(spec.rows)
        check_size(self._elements, self._rows)

    def add_needs(self, spec: Spec) -> None:
        self._needs += len(spec.needs)
        check_number(self._needs)


def _unfit_list() -> UsageError:
    return UsageError(f"jobs: a list of 1 to {MOST_JOBS_PER_SUBMIT} jobs is wanted")


def _repeated(spec: Spec, wire: Mapping[str, Any]) -> Spec:
    """As often as it is to be queued, be it with other commands."""
    times = read_integer(wire, "times", 1, 1, MOST_JOBS_PER_SUBMIT)
    others = len(read_list(wire, "argvs"))
    if times == 1 and not others:
        return spec
    if others >= MOST_JOBS_PER_SUBMIT:
        raise _unfit_list()
    if times > 1 and others:
        raise UsageError("times and argvs: leave one out")
    if spec.elements is not None or spec.key is not None or wire.get("after"):
        raise UsageError("times: an array, a key and jobs that wait for others are told one by one")
    if others and spec.gpu_mem_auto:
        raise UsageError("argvs: jobs that get what their command used before are told one by one")
    return replace(spec, times=times, commands=read_commands(wire))
