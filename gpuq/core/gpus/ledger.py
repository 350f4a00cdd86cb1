"""The ledger: which GPUs are free for whom.

A reading may veto a GPU, never grant one: what grants is that no lease stands in the way, and leases
are committed before anything starts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from gpuq.core.gpus.account import Account, once_ended, without_ours
from gpuq.core.gpus.choosing import Candidate, choose, distances
from gpuq.core.gpus.condition import CLOSED, assess
from gpuq.core.gpus.fitting import is_allowed, is_meant, matches
from gpuq.core.gpus.gpu import Gpu, GpuState
from gpuq.core.model import Lease, Request
from gpuq.core.policy import Policy
from gpuq.core.units import count, format_bytes, format_ranges, name_gpus


class Ledger:
    """The GPUs of one snapshot with who holds them; `take` notes what this turn has given away.

    `kept_idle` GPUs are left without a lease. `settling` are jobs that have started so lately that
    what they compute does not show yet.
    """

    def __init__(
        self,
        gpus: Iterable[Gpu],
        leases: Iterable[Lease],
        policy: Policy,
        *,
        kept_idle: int = 0,
        settling: Iterable[int] = (),
    ) -> None:
        self._policy = policy
        self._kept_idle = kept_idle
        self._settling = set(settling)
        self._accounts = {gpu.uuid: Account(gpu) for gpu in gpus if is_allowed(gpu, policy)}
        self._far = distances([account.gpu for account in self._accounts.values()])
        self._ranks = {uuid: self._rank(one.gpu) for uuid, one in self._accounts.items()}
        for lease in leases:
            if lease.gpu in self._accounts:
                self._accounts[lease.gpu].leases.append(lease)
        # How each GPU is, and what there is at the most for anybody, GPUs for oneself and bytes of one
        # that is shared: asked several times in a turn, and so until the leases are others.
        self._states: dict[str, tuple[GpuState, str | None]] = {}
        self._rooms: dict[str, int | None] = {}
        self._most_free: int | None = None
        self._most_room: int | None = None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Those that may be given out, with the readings that are reckoned with."""
        return tuple(account.gpu for account in self._accounts.values())

    def choose(
        self, request: Request, reluctance: Callable[[str], int] = lambda uuid: 0
    ) -> tuple[str, ...] | None:
        """The GPUs to give to such a job now, those with the least reluctance first; None where too
        few are free for it."""
        accepting = self._enough(request)
        if accepting is None:
            return None
        candidates = [self._candidate(one, request, reluctance) for one in accepting]
        if self._kept_idle:
            candidates = self._without_kept(candidates)
        return choose(candidates, request.gpus, self._far)

    def has_room(self, request: Request) -> bool:
        """Could such a job be given GPUs now, whichever?"""
        return self._enough(request) is not None

    def _enough(self, request: Request) -> list[Account] | None:
        """Those on which it could run, where they are as many as it wants."""
        if self._is_too_much(request):
            return None
        accepting = [a for a in self._accounts.values() if self._refusal(a, request) is None]
        kept = self._kept_of(accepting) if self._kept_idle else 0
        return accepting if len(accepting) - kept >= request.gpus else None

    def _kept_of(self, accounts: Sequence[Account]) -> int:
        unleased = sum(account.is_unleased for account in accounts)
        return max(unleased - self._spare(), 0)

    def take(self, uuids: Iterable[str], job: int, request: Request) -> None:
        self._settling.add(job)
        self._most_free = self._most_room = None
        for uuid in uuids:
            self._states.pop(uuid, None)
            self._rooms.pop(uuid, None)
            account = self._accounts[uuid]
            slot = 0 if request.exclusive else len(account.leases)
            account.leases.append(
                Lease(
                    gpu=uuid,
                    slot=slot,
                    job=job,
                    attempt=0,
                    exclusive=request.exclusive,
                    memory_bytes=request.gpu_mem_bytes,
                )
            )

    def give_back(self, job: int) -> None:
        """What `take` has noted for this job is so no longer."""
        self._states.clear()
        self._rooms.clear()
        self._most_free = self._most_room = None
        for account in self._accounts.values():
            account.leases = [one for one in account.leases if one.job != job or one.attempt]

    def accepting(self, request: Request) -> frozenset[str]:
        """The GPUs on which such a job could run now."""
        accounts = self._accounts.items()
        return frozenset(u for u, one in accounts if self._refusal(one, request) is None)

    def without_ours(self) -> "Ledger":
        """The ledger as it will be when every lease of ours has ended and its memory is free."""
        return self._later({u: Account(without_ours(a)) for u, a in self._accounts.items()})

    def without(self, is_gone: Callable[[Lease], bool], *, calm: bool = False) -> "Ledger":
        """The ledger as it will be when those leases are given back and their memory is free, and
        nothing else has changed; but for GPUs that are `calm` by then, which owed that to somebody
        outside who had left them."""
        accounts = self._accounts.items()
        return self._later(
            {u: once_ended(a, is_gone, calm=calm) for u, a in accounts}, settling=self._settling
        )

    def _later(self, accounts: Mapping[str, Account], settling: Iterable[int] = ()) -> "Ledger":
        """Of the same GPUs: where they are, and in which order they go, is so then too."""
        later = Ledger((), (), self._policy, kept_idle=self._kept_idle, settling=settling)
        later._far, later._ranks, later._accounts = self._far, self._ranks, dict(accounts)
        return later

    def wants(self, request: Request, asked: Request | None = None) -> str:
        """ "wants 2 GPUs with 60G, 1 free (…)" with what stands in the way of the others. `asked` is
        what people asked for, where the request has less for reasons that are said elsewhere."""
        eligible = [a for a in self._accounts.values() if matches(a.gpu, request)]
        refusals = [(a, why) for a in eligible if (why := self._refusal(a, request)) is not None]
        blocked = [account for account, _ in refusals]
        obstacles = [] if not (held := _holders(blocked)) else [held]
        obstacles += _told(refusals)
        if narrow := [a for a, why in refusals if why == _NO_ROOM and not a.is_shared]:
            obstacles.append(self._room_words(narrow))
        if not request.exclusive and (shared := [a for a in blocked if a.is_shared]):
            obstacles.append(self._shared_words(shared))
        if len(eligible) < request.gpus:
            seen = "left to it" if asked is not None else "such to be seen"
            obstacles.insert(0, f"{len(eligible)} {seen}")
        free = len(eligible) - len(blocked)
        if free >= request.gpus:
            free = self._spare()
            obstacles.append(f"reserve_idle leaves {self._kept_idle} to people outside gpuq")
        because = f" ({'; '.join(obstacles)})" if obstacles else ""
        return f"{_wish_words(asked or request)}, {free} free{because}"

    # ── who may have what ──

    def _is_too_much(self, request: Request) -> bool:
        """More than any GPU has, told without looking at each: a queue may hold thousands of shapes."""
        if request.exclusive:
            return request.gpus > self._free_for_one()
        return (request.gpu_mem_bytes or 0) > self._most_shared()

    def _free_for_one(self) -> int:
        if self._most_free is None:
            states = [self._assess(account)[0] for account in self._accounts.values()]
            self._most_free = states.count(GpuState.FREE)
        return self._most_free

    def _most_shared(self) -> int:
        if self._most_room is None:
            shared = (one for one in self._accounts.values() if one.is_shared or not one.leases)
            self._most_room = max((self._room(one) or 0 for one in shared), default=0)
        return self._most_room

    def _room(self, account: Account) -> int | None:
        uuid = account.gpu.uuid
        if uuid not in self._rooms:
            self._rooms[uuid] = account.room(self._policy)
        return self._rooms[uuid]

    def _assess(self, account: Account) -> tuple[GpuState, str | None]:
        uuid = account.gpu.uuid
        if uuid not in self._states:
            self._states[uuid] = assess(account.gpu, account.leases, self._policy)
        return self._states[uuid]

    def _refusal(self, account: Account, request: Request) -> str | None:
        """What keeps this job from this GPU, in words or as one of those that are summed up; None
        where nothing does."""
        gpu = account.gpu
        if not matches(gpu, request):
            return "is not of that kind"
        state, reason = self._assess(account)
        if state in CLOSED or gpu.locked_by is not None:
            return reason or gpu.locked_by
        if request.exclusive:
            return None if state is GpuState.FREE else reason or _HELD
        if any(lease.exclusive for lease in account.leases):
            return reason or _HELD
        return self._refusal_to_share(account, request)

    def _refusal_to_share(self, account: Account, request: Request) -> str | None:
        gpu, policy = account.gpu, self._policy
        if len(account.leases) >= (1 if gpu.one_process_only else policy.max_jobs_per_gpu):
            return "takes one process only (compute mode)" if gpu.one_process_only else _HELD
        if gpu.one_process_only and gpu.processes:
            return "takes one process only (compute mode), and has it"
        room = self._room(account)
        if room is None:
            return "does not tell its memory"
        if room < (request.gpu_mem_bytes or 0):
            return _NO_ROOM
        return self._too_busy(account, request)

    def _too_busy(self, account: Account, request: Request) -> str | None:
        """A sharing job that is to be started only where little is computed."""
        if request.max_util is None:
            return None
        if settling := [lease.job for lease in account.leases if lease.job in self._settling]:
            return f"has to show first what job {settling[0]}, just started, computes there"
        recent = account.gpu.recent_utilization_percent
        if recent is None:
            return "has not shown yet how much is computed there"
        return None if recent < request.max_util else f"was {recent} % busy lately"

    def _spare(self) -> int:
        """How many GPUs without a lease may still get one."""
        unleased = sum(account.is_unleased for account in self._accounts.values())
        return max(unleased - self._kept_idle, 0)

    def _without_kept(self, candidates: list[Candidate]) -> list[Candidate]:
        """With no more unleased GPUs among them than may be given away, the best of those; where there
        are no others, all of them: so many are not asked for."""
        spare = self._spare()
        unleased = [one for one in candidates if self._accounts[one.uuid].is_unleased]
        if not spare < len(unleased) < len(candidates):
            return candidates
        kept = {one.uuid for one in sorted(unleased, key=lambda one: one.merits)[spare:]}
        return [one for one in candidates if one.uuid not in kept]

    # ── which of them ──

    def _candidate(
        self, account: Account, request: Request, reluctance: Callable[[str], int]
    ) -> Candidate:
        gpu = account.gpu
        return Candidate(
            uuid=gpu.uuid,
            reluctance=reluctance(gpu.uuid),
            load=0.0 if request.exclusive else self._load(account),
            misfit=_misfit(gpu, request),
            rank=self._ranks[gpu.uuid],
            index=gpu.index,
        )

    def _load(self, account: Account) -> float:
        """The share of its memory that is taken; a sharing job goes where it is the least."""
        return (account.leased() + account.outside()) / (account.capacity or 1)

    def _rank(self, gpu: Gpu) -> int:
        order = self._policy.gpu_order
        if not order:
            return 0
        places = (place for place, word in enumerate(order) if is_meant(gpu, word))
        return next(places, len(order))

    def _room_words(self, accounts: Sequence[Account]) -> str:
        most = max(account.room(self._policy) or 0 for account in accounts)
        words = f"{format_bytes(max(most, 0))} left"
        if len(accounts) == 1:
            return f"GPU {accounts[0].gpu.index} has {words}"
        return f"{_named(accounts)} have {words} at most"

    def _shared_words(self, accounts: Sequence[Account]) -> str:
        most = self._policy.max_jobs_per_gpu
        open_ones = [account for account in accounts if len(account.leases) < most]
        rooms = [account.room(self._policy) or 0 for account in open_ones]
        if not rooms:
            return f"a shared one takes {count(most, 'job')} at most"
        return f"a shared one has {format_bytes(max(*rooms, 0))} left at most"


def _misfit(gpu: Gpu, request: Request) -> int:
    """What of the GPU the job has no use for: memory that it did not ask for; or, where it asked for
    a GPU, that this is only a part of one."""
    if request.gpu_mem_bytes is None:
        return int(gpu.parent is not None)
    return (gpu.memory_total_bytes or 0) - request.gpu_mem_bytes if request.exclusive else 0


# These refusals are summed up over all GPUs that they hold of.
_HELD, _NO_ROOM = "", "no room"


def _told(refusals: Sequence[tuple[Account, str]]) -> list[str]:
    """ "GPUs 0-3 outside gpuq: …", each reason once with all that it keeps away."""
    by_reason: dict[str, list[Account]] = {}
    for account, why in refusals:
        if why not in (_HELD, _NO_ROOM):
            by_reason.setdefault(why, []).append(account)
    return [f"{_named(accounts)} {why}" for why, accounts in by_reason.items()]


def _named(accounts: Sequence[Account]) -> str:
    return name_gpus([account.gpu.index for account in accounts])


def _holders(accounts: Sequence[Account]) -> str | None:
    leases = [lease for account in accounts for lease in account.leases]
    jobs = sorted({lease.job for lease in leases if lease.is_active})
    if not jobs:
        return None
    return f"in use by {'job' if len(jobs) == 1 else 'jobs'} {format_ranges(jobs)}"


def _wish_words(request: Request) -> str:
    whole = "whole " if request.exclusive and request.gpu_mem_bytes is not None else ""
    words = f"wants {count(request.gpus, whole + 'GPU')}"
    if request.gpu_mem_bytes is not None:
        words += f" with {format_bytes(request.gpu_mem_bytes)}"
    if request.gpu_model is not None:
        words += f" of model {request.gpu_model}"
    if request.gpu_ids or request.exclude_gpus:
        words += " of those that it names"
    return words
