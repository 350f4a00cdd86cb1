"""How much is measured: enough for a figure that holds, a quick look, or just whether it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """`share_s` is how long the rounds of one measure may go on; one round is always whole."""

    rounds: int
    share_s: float
    jobs: int
    gap_jobs: int
    processes: int  # whole command lines of each kind
    submits: int
    kills: int
    batch_jobs: int
    queued_jobs: int
    array_elements: int
    finished_jobs: int
    live_jobs: int
    sleep_s: float
    idle_s: float
    watchers: int
    training_s: float
    slow_jobs: int  # of a peer that takes about a second for each


FULL = Scale(
    rounds=5,
    share_s=40.0,
    jobs=1000,
    gap_jobs=200,
    processes=30,
    submits=1000,
    kills=15,
    batch_jobs=10_000,
    queued_jobs=10_000,
    array_elements=1_000_000,
    finished_jobs=1_000_000,
    live_jobs=1000,
    sleep_s=2.0,
    idle_s=30.0,
    watchers=1000,
    training_s=3.0,
    slow_jobs=10,
)

QUICK = Scale(
    rounds=2,
    share_s=12.0,
    jobs=500,
    gap_jobs=60,
    processes=8,
    submits=300,
    kills=6,
    batch_jobs=5000,
    queued_jobs=2000,
    array_elements=1_000_000,
    finished_jobs=100_000,
    live_jobs=200,
    sleep_s=1.0,
    idle_s=10.0,
    watchers=200,
    training_s=1.0,
    slow_jobs=4,
)

TINY = Scale(
    rounds=1,
    share_s=2.0,
    jobs=6,
    gap_jobs=4,
    processes=1,
    submits=5,
    kills=1,
    batch_jobs=20,
    queued_jobs=20,
    array_elements=1000,
    finished_jobs=50,
    live_jobs=5,
    sleep_s=0.05,
    idle_s=0.3,
    watchers=5,
    training_s=0.1,
    slow_jobs=2,
)
