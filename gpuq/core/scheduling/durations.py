"""How long a command runs, by how long it ran before: what is remembered of that, and what is taken
for sure. It is a guess, and nobody is ended by it."""

from dataclasses import dataclass
from math import ceil, log2

# Over the longest run that was seen: the next one may have a longer day.
STRETCH = 1.5
# Times that hardly differ are one, so that jobs that ask the same stay of one class: each step is
# longer by the root of two.
STEPS_PER_DOUBLING = 2
SHORTEST_S = 16.0
# A long run of old fades with each one that is shorter: a command that was changed gets less in time.
FADING = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What is remembered of a command: its longest run (s), and how many showed it, the last of which
    was this job."""

    longest_s: float
    runs: int
    last_job: int


def remember(ran_s: float, before: Ran | None, job: int) -> Ran:
    """What is known of a command once this job of it has succeeded too."""
    if before is None:
        return Ran(longest_s=ran_s, runs=1, last_job=job)
    longest_s = max(ran_s, before.longest_s * FADING)
    return Ran(longest_s=longest_s, runs=before.runs + 1, last_job=job)


def lasts_s(time_limit_s: float | None, before: Ran | None) -> float | None:
    """How long a job will run at the most, in coarse steps: by its time limit where it has one, else by
    the runs before it; None where nobody knows."""
    if time_limit_s is not None:
        return _coarse(time_limit_s)
    return None if before is None else _coarse(before.longest_s * STRETCH)


def _coarse(seconds: float) -> float:
    """The next step that is no shorter."""
    if seconds <= SHORTEST_S:
        return SHORTEST_S
    step = ceil(log2(seconds / SHORTEST_S) * STEPS_PER_DOUBLING - 1e-9)
    return round(SHORTEST_S * 2 ** (step / STEPS_PER_DOUBLING), 1)
