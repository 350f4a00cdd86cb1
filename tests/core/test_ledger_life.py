"""No GPU is ever promised more than it has, whatever happens to it meanwhile.

A box of shared GPUs lives through random news: jobs that allocate late, more than they asked for or
nothing at all, strangers who come and go, memory that does not come back, a driver that tells sizes
of processes or not. After each piece of it the books are held against the truth, not against the
ledger's own reckoning.
"""

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gpuq.core.decisions import MarkDirty, Release, Start
from gpuq.core.gpus.condition import count_calm
from gpuq.core.gpus.gpu import Bar, Gpu, GpuProcess, GpuState
from gpuq.core.model import Lease, LeaseState, Request, WaitingJob
from gpuq.core.policy import Policy
from gpuq.core.scheduling.scheduler import plan
from tests.builders import GIB, MIB, STEADY, active, gpu, request, uuid, world

TOTAL, RESERVED, BASELINE = 24 * GIB, GIB // 2, 300 * MIB
POLICY = Policy(max_jobs_per_gpu=4, headroom_bytes=GIB // 2)
TELLS_SIZES, TELLS_PIDS, TELLS_NOTHING = "sizes", "pids", "nothing"
WISHES = [
    request(),
    request(2),
    request(mem="20G", exclusive=True),
    *(request(mem=f"{gib}G") for gib in (1, 3, 5, 8, 12, 20)),
    request(2, "6G"),
]


@dataclass
class Card:
    """A GPU as it truly is."""

    used: dict[int, int] = field(default_factory=dict)  # bytes by job
    strangers: dict[int, int] = field(default_factory=dict)  # bytes by pid
    lingering: int = 0
    bar: Bar | None = None

    @property
    def free(self) -> int:
        taken = sum(self.used.values()) + sum(self.strangers.values()) + self.lingering
        return TOTAL - RESERVED - BASELINE - taken


class Sharing(RuleBasedStateMachine):
    @initialize(
        number=st.integers(1, 3),
        tells=st.sampled_from([TELLS_SIZES, TELLS_PIDS, TELLS_NOTHING]),
        kept_idle=st.integers(0, 1),
    )
    def a_box(self, number: int, tells: str, kept_idle: int) -> None:
        self.cards = [Card() for _ in range(number)]
        self.tells = tells
        self.kept_idle = kept_idle
        self.now = 1000.0
        self.readings: tuple[Gpu, ...] = ()
        self.seen: list[Card] = []  # the truth at the last reading
        self.jobs: dict[int, Request] = {}
        self.waiting: list[WaitingJob] = []
        self.leases: list[Lease] = []
        for _ in range(POLICY.calm_samples):
            self.a_reading_is_taken()

    # ── what happens ──

    @rule(wish=st.sampled_from(WISHES), n=st.integers(1, 3))
    def jobs_are_submitted(self, wish: Request, n: int) -> None:
        for _ in range(n):
            id = len(self.jobs) + 1
            self.jobs[id] = wish
            kind = WISHES.index(wish) + 1
            self.waiting.append(WaitingJob(id=id, class_id=kind, request=wish))
        self.a_turn()

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 99), share=st.sampled_from([0.0, 0.3, 1.0, 1.0, 1.4]))
    def a_job_allocates(self, which: int, share: float) -> None:
        held = self.pick(self.running(), which)
        card = self.card(held)
        wanted = int((held.memory_bytes or 20 * GIB) * share)
        had = card.used.get(held.job, 0)
        card.used[held.job] = min(wanted, card.free + had)

    @rule()
    def all_is_quiet_again(self) -> None:
        """Else the box is soon so full that nothing is ever started."""
        while self.running():
            self.a_job_ends(0, lingers=False)
        for card in self.cards:
            card.lingering = 0
        self.waiting.clear()
        self.a_reading_is_taken()

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 99), lingers=st.booleans())
    def a_job_ends(self, which: int, lingers: bool) -> None:
        if not self.running():
            return
        job = self.pick(self.running(), which).job
        for place, held in enumerate(self.leases):
            if held.job == job:
                card = self.card(held)
                card.lingering += card.used.pop(job, 0) if lingers else 0
                card.used.pop(job, None)
                over = {"state": LeaseState.COOLING, "cooling_since": self.now}
                self.leases[place] = replace(held, **over)
        self.a_turn()

    @rule(which=st.integers(0, 99))
    def memory_comes_back(self, which: int) -> None:
        self.pick(self.cards, which).lingering = 0

    @rule(which=st.integers(0, 99), gib=st.integers(1, 23))
    def a_stranger_comes(self, which: int, gib: int) -> None:
        card = self.pick(self.cards, which)
        card.strangers[9000 + len(card.strangers)] = max(min(gib * GIB, card.free), 0)

    @rule(which=st.integers(0, 99))
    def the_strangers_leave(self, which: int) -> None:
        self.pick(self.cards, which).strangers.clear()

    @rule(which=st.integers(0, 99))
    def a_gpu_is_drained_or_resumed(self, which: int) -> None:
        card = self.pick(self.cards, which)
        card.bar = None if card.bar else Bar(state=GpuState.DRAINED, reason="new fan")
        self.a_reading_is_taken()

    @rule(seconds=st.sampled_from([1.0, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.a_turn()

    @rule()
    def a_reading_is_taken(self) -> None:
        self.now += 1.0
        before = {one.uuid: one for one in self.readings}
        fresh = [self.read(index, card) for index, card in enumerate(self.cards)]
        self.readings = tuple(
            replace(
                one, calm_samples=count_calm(before.get(one.uuid), one, self.on(one.uuid), POLICY)
            )
            for one in fresh
        )
        self.seen = [
            replace(card, used=dict(card.used), strangers=dict(card.strangers))
            for card in self.cards
        ]
        self.a_turn()

    # ── what is decided, and whether it may be ──

    def a_turn(self) -> None:
        if not self.readings:
            return
        found = world(
            self.readings,
            self.waiting,
            self.leases,
            [active(id, self.jobs[id].gpus) for id in {held.job for held in self.running()}],
            now=self.now,
            read_at=self.now,
        )
        # Classes and policy of our own: `world` makes up others.
        snapshot = replace(
            found, waiting=tuple(self.waiting), policy=POLICY, kept_idle=self.kept_idle
        )
        for decision in plan(snapshot).decisions:
            match decision:
                case Start():
                    self.start(decision)
                case Release():
                    self.leases = [h for h in self.leases if (h.gpu, h.slot) != place(decision)]
                case MarkDirty():
                    self.leases = [
                        replace(h, state=LeaseState.DIRTY, dirt=decision.dirt)
                        if (h.gpu, h.slot) == place(decision)
                        else h
                        for h in self.leases
                    ]

    def start(self, decision: Start) -> None:
        wish = self.jobs[decision.job]
        assert len(set(decision.gpus)) == len(decision.gpus) == wish.gpus
        takes_another = any(not self.on(name) for name in decision.gpus)
        for name in decision.gpus:
            self.check(name, wish)
            taken = {held.slot for held in self.on(name)}
            slot = next(number for number in range(64) if number not in taken)
            self.leases.append(
                Lease(
                    gpu=name,
                    slot=slot,
                    job=decision.job,
                    attempt=1,
                    exclusive=wish.exclusive,
                    memory_bytes=wish.gpu_mem_bytes,
                )
            )
        unleased = [i for i, card in enumerate(self.cards) if not self.on(uuid(i)) and not card.bar]
        assert not takes_another or len(unleased) >= self.kept_idle, "none is left to others"
        self.waiting = [one for one in self.waiting if one.id != decision.job]

    def check(self, name: str, wish: Request) -> None:
        held = self.on(name)
        card = self.seen[int(name.removeprefix("GPU-"))]
        assert card.bar is None, "a drained GPU was given away"
        if wish.exclusive:
            assert not held, "it is not alone"
            assert not card.strangers or self.tells == TELLS_NOTHING, "a stranger is on it"
            visible = card.lingering + sum(card.strangers.values())
            assert visible <= POLICY.idle_memory_bytes, "somebody's memory is in use there"
            return
        assert not any(one.exclusive for one in held), "beside one that is to be alone"
        assert len(held) < POLICY.max_jobs_per_gpu
        promised = sum(max(one.memory_bytes or 0, self.measured(card, one)) for one in held)
        others = self.known_to_be_others(card, held)
        capacity = TOTAL - RESERVED
        assert promised + (wish.gpu_mem_bytes or 0) + others + POLICY.headroom_bytes <= capacity

    def measured(self, card: Card, held: Lease) -> int:
        """What was seen of a job: nothing, where the driver told no sizes."""
        return card.used.get(held.job, 0) if self.tells == TELLS_SIZES else 0

    def known_to_be_others(self, card: Card, held: list[Lease]) -> int:
        """What must be somebody else's: all of it where sizes are told, else what the jobs there
        cannot have taken though each had all that it asked for."""
        outside = BASELINE + card.lingering + sum(card.strangers.values())
        if self.tells == TELLS_SIZES:
            return outside
        ours = sum(card.used.values())
        return max(outside + ours - sum(one.memory_bytes or 0 for one in held), 0)

    # ── the box ──

    def read(self, index: int, card: Card) -> Gpu:
        sized = self.tells == TELLS_SIZES
        processes = [
            GpuProcess(
                pid=pid, user="bob", command="x", memory_bytes=size if sized else None, job=job
            )
            for pid, job, size in (
                *((pid, None, size) for pid, size in card.strangers.items()),
                *((100 + job, job, size) for job, size in card.used.items() if size),
            )
        ]
        return replace(
            gpu(index, processes=None if self.tells == TELLS_NOTHING else processes),
            memory_total_bytes=TOTAL,
            memory_reserved_bytes=RESERVED,
            memory_used_bytes=TOTAL - RESERVED - card.free,
            baseline_bytes=BASELINE,
            bar=card.bar,
        )

    def on(self, name: str) -> list[Lease]:
        return [held for held in self.leases if held.gpu == name]

    def running(self) -> list[Lease]:
        return [held for held in self.leases if held.state is LeaseState.ACTIVE]

    def card(self, held: Lease) -> Card:
        return self.cards[int(held.gpu.removeprefix("GPU-"))]

    @staticmethod
    def pick(some, which):  # type: ignore[no-untyped-def]
        return some[which % len(some)]


def place(decision: Release | MarkDirty) -> tuple[str, int]:
    return decision.gpu, decision.slot


def test_no_gpu_is_promised_more_than_it_has() -> None:
    many = settings(STEADY, max_examples=300, stateful_step_count=40, report_multiple_bugs=False)
    run_state_machine_as_test(Sharing, settings=many)  # type: ignore[no-untyped-call]
