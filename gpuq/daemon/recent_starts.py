"""When jobs were started lately, as far back as a start rate asks. It is kept in memory: a daemon that
is started again begins anew."""

from collections import deque

from gpuq.core.model import RecentStart
from gpuq.core.policy import Policy
from gpuq.core.scheduling.rate import longest_memory_s


class RecentStarts:
    def __init__(self) -> None:
        self._starts: deque[RecentStart] = deque()

    def note(self, queue: str, *, at: float) -> None:
        """`at` is on CLOCK_MONOTONIC."""
        self._starts.append(RecentStart(at=at, queue=queue))

    def as_of(self, now: float, policy: Policy) -> tuple[RecentStart, ...]:
        """Those that a rate may ask about; all others are forgotten."""
        memory_s = longest_memory_s(policy)
        while self._starts and self._starts[0].at + memory_s <= now:
            self._starts.popleft()
        return tuple(self._starts)
