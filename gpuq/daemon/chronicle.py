"""News becomes facts: that a job runs, that its main process ended, that an attempt is over, and
whether the job is tried again. Part of the loop and on its thread; what an end means is the core's to
say.
"""

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from gpuq.core.ends.beside import beside_words
from gpuq.core.ends.retry import (
    DEFAULT_BACKOFF,
    DEFAULT_ON,
    Again,
    Ending,
    No,
    RetryRule,
    decide,
    parse_backoff,
    parse_retry_on,
)
from gpuq.core.gpus.breaker import speaks_against_gpu, tell_xid
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import EndCause, Exit, JobState, Outcome
from gpuq.core.policy import Policy
from gpuq.core.results.signature import error_signature
from gpuq.core.states import (
    GIVES_BACK,
    GONE,
    conclude,
    explain,
    gpu_memory_ran_out,
    may_have_gone_with_host,
)
from gpuq.daemon import faults
from gpuq.daemon.clock import Clock
from gpuq.daemon.linux import processes
from gpuq.daemon.lookout import Lookout
from gpuq.daemon.store import Store
from gpuq.daemon.store.agreed import Terms
from gpuq.daemon.store.happened import Delay, Ended
from gpuq.daemon.supervisor import Exited, MainEnded, News, Running
from gpuq.daemon.watchers import Watchers

MOST_RETURNS = 3
START_AGAIN_S = 5.0  # after the machine had no room for a job to begin
SOON_S = 30.0  # who has not come further than that may never have had the GPU


class Chronicle:
    """What was heard and not yet written down stands in `inbox`. `take_reports` stores what an attempt
    (job, attempt) has reported to its end; `on_end` hears of each end that is committed."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        policy: Callable[[], Policy],
        watchers: Watchers,
        lookout: Lookout,
        take_reports: Callable[[int, int], None],
    ) -> None:
        self.inbox: deque[News] = deque()
        self.on_end: Callable[[int, int], None] = lambda job, attempt: None
        self.start_trouble: tuple[str, float] | None = None  # until when, on CLOCK_MONOTONIC
        self._store = store
        self._clock = clock
        self._policy = policy
        self._watchers = watchers
        self._lookout = lookout
        self._take_reports = take_reports
        self._boot_id = processes.boot_id()
        self._returns: Counter[int] = Counter()
        self._over: set[tuple[int, int]] = set()  # attempts whose end is in this commit as well
        self._given_up: list[range] = []  # jobs that were cancelled in this commit for others' ends

    def write_down(self) -> int:
        """What was heard, in order; stands in a transaction. Returns how much that was, to be announced
        once it is committed: what the disk refuses is kept, for the next time."""
        faults.here("loop.news")
        self._given_up = []
        self._over = {
            (one.job, one.attempt)
            for one in self.inbox
            if isinstance(one, Exited) and one.exit is not None
        }
        for news in self.inbox:
            self._write_down(news)
        return len(self.inbox)

    def announce(self, count: int) -> None:
        """So much of it is committed: who waits for it is told."""
        faults.here("loop.news_committed")
        for _ in range(count):
            self._announce(self.inbox.popleft())
        for span in self._given_up:
            self._watchers.publish(span[0], "started", last=span[-1])
            self._watchers.publish(span[0], "ended", last=span[-1])
        self._lookout.tell_leases()

    def _write_down(self, news: News) -> None:
        match news:
            case Running():
                self._store.happened.running(
                    news.job,
                    news.attempt,
                    pid=news.pid,
                    pid_start=news.pid_start,
                    at=news.at,
                    mono=self._past(news.mono),
                    is_over=(news.job, news.attempt) in self._over,
                )
            case MainEnded():
                self._store.happened.main_ended(
                    news.job,
                    news.attempt,
                    left=news.left,
                    mono=self._past(news.mono),
                    now=self._clock.wall(),
                )
            case Exited(exit=None):
                self._return_to_queue(news.job, news.attempt, news.cause)
            case Exited(exit=Exit() as exit):
                self._end(news.job, news.attempt, exit, news.ending)

    def _past(self, mono: float) -> float:
        """What a job could have written itself is believed only as far as it can be."""
        return min(mono, self._clock.monotonic())

    def _announce(self, news: News) -> None:
        if isinstance(news, MainEnded):
            return
        if isinstance(news, Running):
            self._watchers.publish(news.job, "started")
            return
        self.on_end(news.job, news.attempt)
        self._lookout.usage.series.forget((news.job, news.attempt))
        if self._store.current.state(news.job) == JobState.ENDED:
            self._returns.pop(news.job, None)
            self._watchers.publish(news.job, "started")
            self._watchers.publish(news.job, "ended")
        elif news.exit is None and news.cause is None:
            self._returns[news.job] += 1

    def _return_to_queue(self, job: int, attempt: int, cause: str | None) -> None:
        if cause is not None:
            self.start_trouble = cause, self._clock.monotonic() + START_AGAIN_S
            self._store.happened.return_to_queue(job, attempt, cause=cause, now=self._clock.wall())
            return
        if self._returns[job] >= MOST_RETURNS:
            self._end(job, attempt, Exit(lost=f"its runner died {MOST_RETURNS} times at the gate"))
            return
        cause = "its runner was gone before the job began"
        self._store.happened.return_to_queue(job, attempt, cause=cause, now=self._clock.wall())

    def _end(self, job: int, attempt: int, exit: Exit, by_others: EndCause | None = None) -> None:
        if not exit.nothing_reported:
            self._take_reports(job, attempt)
        terms = self._store.agreed.terms(job, attempt)
        if self._had_ended_before(exit, terms):
            terms = replace(terms, ending=None)
        if by_others is not None and terms.ending is None:
            terms = replace(terms, ending=by_others)
        outcome = conclude(exit, ending=terms.ending)
        explained = partial(
            explain,
            exit,
            outcome,
            ending=terms.ending,
            stop=terms.stop,
            time_limit_s=terms.time_limit_s,
            heartbeat_s=terms.heartbeat_s,
            over_memory=terms.over_memory,
            mem_bytes=terms.mem_bytes,
            mem_used_bytes=exit.memory_peak_bytes or terms.memory_peak_bytes,
            gave_way_to=terms.gives_way_for,
        )
        ended = Ended(
            job=job,
            attempt=attempt,
            exit=exit,
            outcome=outcome,
            reason=explained(),
            open_reason=explained(openly=True),
            error_signature=error_signature(exit, outcome, ending=terms.ending),
            cooling=None if terms.cool_at_once else (self._clock.monotonic(), self._boot_id),
            gpu_use=self._lookout.usage.of(job, attempt) if terms.gpus else None,
            series=self._lookout.usage.series.at_end((job, attempt)),
        )
        ended = _with_words(ended, *beside_words(exit))
        self._end_or_try_again(ended, terms)
        if terms.gpus:
            half_life_s = self._policy().fair_share_half_life_s
            self._store.shares.add(job, attempt, half_life_s=half_life_s)
        self._learn(ended, terms)
        if terms.gpus and self._failed_soon(ended, terms):
            self._lookout.doubt(f"job {job} failed soon after its start")

    def _failed_soon(self, ended: Ended, terms: Terms) -> bool:
        """Its own program ran, and so briefly that the driver may be to blame."""
        if ended.outcome is not Outcome.FAILED or ended.exit.stage is not None:
            return False
        started = terms.started_mono
        # A start of an earlier boot may lie ahead.
        return started is not None and 0 <= self._clock.monotonic() - started <= SOON_S

    def _had_ended_before(self, exit: Exit, terms: Terms) -> bool:
        """Had it ended by itself when gpuq, which could not know it yet, began to end it? When the
        machine goes down systemd ends jobs too, and may have come first."""
        if exit.ended_mono is None or terms.ending_since is None:
            return False
        if terms.ending in GONE and may_have_gone_with_host(exit):
            return False
        return self._clock.told(exit.ended_mono) < terms.ending_since

    def _end_or_try_again(self, ended: Ended, terms: Terms) -> None:
        now = self._clock.wall()
        ended = self._heed_gpus(ended, terms)
        cause = terms.ending
        if cause is not None and cause in GIVES_BACK and terms.stop is None:
            self._store.happened.give_back(ended, cause, now=now)
            return
        verdict = self._decide_retry(ended, terms)
        if isinstance(verdict, Again):
            delay = Delay(
                boottime=self._clock.boottime() + verdict.delay_s,
                boot_id=self._boot_id,
                at=now + verdict.delay_s,
            )
            self._store.happened.try_again(
                ended, delay, request=verdict.request, why=verdict.why, now=now
            )
            return
        if verdict.why is not None:
            ended = _with_words(ended, verdict.why)
        self._store.happened.end(ended, now=now)
        self._given_up += self._store.giving_up.heed(ended.job, ended.outcome, now=now)

    def _heed_gpus(self, ended: Ended, terms: Terms) -> Ended:
        """What its end says of the GPUs that it had, and what the driver told of them meanwhile."""
        ran_s = self._ran_s(ended, terms)
        against = speaks_against_gpu(ended.outcome, ended.exit, ran_s, self._policy())
        if against is not None and terms.ending not in GONE:
            self._store.health.count_end(terms.gpus, against=against)
        if ended.outcome is not Outcome.FAILED:
            return ended
        told = self._store.health.xids(ended.job, ended.attempt)
        words = [tell_xid(xid, index) for xid, index in told]
        return _with_words(ended, *words)

    def _ran_s(self, ended: Ended, terms: Terms) -> float | None:
        """None where it did not begin to run, or before the machine was restarted."""
        if terms.started_mono is None or terms.boot_id != self._boot_id:
            return None
        ended_mono = ended.exit.ended_mono
        until = self._clock.monotonic() if ended_mono is None else self._clock.told(ended_mono)
        return max(until - terms.started_mono, 0.0)

    def _decide_retry(self, ended: Ended, terms: Terms) -> Again | No:
        if not terms.retries:
            return No()
        machine = self._machine()
        ending = Ending(
            outcome=ended.outcome,
            attempt=ended.attempt - terms.uncounted,
            request=terms.request,
            exit_code=ended.exit.exit_code,
            wished=terms.stop is not None,
            gpu_exhausted=_gpu_exhausted(ended, terms),
            gpus=tuple(gpu for gpu in machine if gpu.uuid in terms.gpus),
            used_bytes=None if ended.gpu_use is None else ended.gpu_use.peak_bytes,
        )
        return decide(_rule(terms), ending, machine, self._policy(), random.random())

    def _learn(self, ended: Ended, terms: Terms) -> None:
        """How long its command runs; and what it needs of a GPU, for --gpu-mem auto, or that what was
        known is too little."""
        ran_s = self._ran_s(ended, terms)
        if ended.outcome is Outcome.SUCCEEDED and ran_s is not None and not terms.fell_back:
            ran_s = max(ran_s - terms.paused_s, 0.0)
            self._store.durations.learn(ended.job, ran_s, now=self._clock.wall())
        if ended.gpu_use is None:
            return
        if ended.outcome is Outcome.SUCCEEDED and ended.gpu_use.peak_bytes:
            peak_bytes, now = ended.gpu_use.peak_bytes, self._clock.wall()
            self._store.learned.learn(ended.job, peak_bytes, now=now)
        ran_out = ended.outcome is Outcome.OUT_OF_MEMORY and _gpu_exhausted(ended, terms)
        if ran_out and terms.gpu_mem_from is not None:
            self._store.learned.forget(ended.job)

    def _machine(self) -> list[Gpu]:
        """Every GPU that this machine has shown: before the first reading they are remembered."""
        known = {gpu.uuid: gpu for gpu in self._store.machine.known_gpus()}
        return list((known | {gpu.uuid: gpu for gpu in self._lookout.gpus or ()}).values())


def _with_words(ended: Ended, *words: str) -> Ended:
    """With more behind its reason that anybody may read."""
    if not words:
        return ended
    reason, open_reason = ("; ".join([one, *words]) for one in (ended.reason, ended.open_reason))
    return replace(ended, reason=reason, open_reason=open_reason)


def _gpu_exhausted(ended: Ended, terms: Terms) -> bool:
    """Did it end because a GPU's memory, or its share of that, was too little?"""
    return terms.ending is EndCause.GPU_MEMORY or gpu_memory_ran_out(ended.exit) is not None


def _rule(terms: Terms) -> RetryRule:
    return RetryRule(
        retries=terms.retries,
        backoff=DEFAULT_BACKOFF if terms.backoff is None else parse_backoff(terms.backoff),
        on=DEFAULT_ON if terms.retry_on is None else parse_retry_on(terms.retry_on),
    )
