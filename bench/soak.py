"""Many short jobs for a long time, with watchers: nothing may grow, and nothing may be left.

    python -m bench.soak                           20,000 jobs in ten minutes
    python -m bench.soak --jobs 300 --seconds 5    a short one
    python -m bench.soak --json PATH               the samples too

The jobs come at an even pace, and a few of them fail, write, or leave a child behind. Exit code 1 where
something grew after the warm-up (the first quarter), or was left at the end: a descriptor, a thread, a
process, a lease. Logs and records of jobs stay for as long as the settings say, so of files it is the
number for each job that may not grow.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression

import apsw

from bench import proc
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.room import Room, room
from bench.scale import FULL
from bench.watchers import watching

GPUS = 4
SCREENS, FOLLOWERS = 3, 20
PACE_S = 0.25  # between two submissions
SAMPLES = 60
WARM_UP = 0.25
SETTLE_S = 15.0
JOBS = (
    ["/bin/true"],
    ["/bin/sh", "-c", "echo a line of its log"],
    ["/bin/false"],
    ["/bin/true"],
    ["/bin/sh", "-c", "sleep 0.01 & exit 3"],
)
# What may come on top between the end of the warm-up and the end.
MOST_GROWTH_PERCENT = 5.0
MOST_WAL_BYTES = 32 * 1024 * 1024
FEWEST_JOBS = 2000  # of fewer no growth can be told from a start


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The daemon, and in `processes` also its launcher, probe and runners."""

    at_s: float
    submitted: int
    ended: int
    pss_mb: float
    all_pss_mb: float
    fds: int
    threads: int
    processes: int
    leases: int
    files: int
    wal_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`before`: after a few jobs, with nobody there; `after`: the same once all is over."""

    jobs: int
    before: Sample
    after: Sample
    samples: Sequence[Sample]

    def troubles(self) -> list[str]:
        """A sentence for each thing that grew or was left."""
        return [*self._left(), *(self._grown() if self.jobs >= FEWEST_JOBS else ())]

    def growth_percent(self, figure: Callable[[Sample], float]) -> float:
        """From the end of the warm-up to the end, on a straight line through the samples."""
        warm = self.samples[int(len(self.samples) * WARM_UP) :]
        slope, intercept = linear_regression([s.at_s for s in warm], [figure(s) for s in warm])
        first, last = (intercept + slope * s.at_s for s in (warm[0], warm[-1]))
        return 100 * (last - first) / first

    def files_for_each_job(self) -> float:
        return (self.after.files - self.before.files) / self.jobs

    def _left(self) -> Iterator[str]:
        for what in ("fds", "threads", "processes"):
            before, after = getattr(self.before, what), getattr(self.after, what)
            if after > before:
                yield f"{after - before} {what} are left over ({before} before, {after} after)"
        if self.after.leases:
            yield f"{self.after.leases} leases are held by nobody"
        if self.after.ended - self.before.ended != self.jobs:
            ended = self.after.ended - self.before.ended
            yield f"{ended} jobs have ended of {self.jobs} that were submitted"
        if (most := max(s.wal_bytes for s in self.samples)) > MOST_WAL_BYTES:
            yield f"the WAL grew to {most / 1e6:.0f} MB"

    def _grown(self) -> Iterator[str]:
        for what, figure in GROWING.items():
            if (grown := self.growth_percent(figure)) > MOST_GROWTH_PERCENT:
                yield f"{what} grew by {grown:.1f} % after the warm-up"


GROWING: dict[str, Callable[[Sample], float]] = {
    "the memory of the daemon": lambda sample: sample.pss_mb,
    "the memory of all its processes": lambda sample: sample.all_pss_mb,
    "the number of its descriptors": lambda sample: sample.fds,
    "the number of files for each job": lambda sample: sample.files / max(sample.ended, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--json", type=Path, metavar="PATH")
    parser.add_argument("--room", metavar="DIR", help="where its files go: /var/tmp")
    asked = parser.parse_args()
    with room(FULL, Path(), asked.room) as place:
        story = soak(place, asked.jobs, asked.seconds)
    print(table(story))
    troubles = story.troubles()
    if asked.json is not None:
        told = {**asdict(story), "troubles": troubles}
        asked.json.write_text(json.dumps(told, indent=2) + "\n")
    for sentence in troubles:
        print(f"TROUBLE: {sentence}")
    sys.exit(int(bool(troubles)))


def soak(place: Room, jobs: int, seconds: float) -> Story:
    with gpuq_with(place, GPUS) as gpuq:
        first = gpuq.submit_many(["/bin/true"], 2 * GPUS)
        gpuq.wait(first, 2 * GPUS)
        with looked_on(gpuq):
            pass  # what a first watcher loads stays, and is no leak
        before = settled(gpuq, None)
        with looked_on(gpuq):
            samples = lived_through(gpuq, jobs, seconds)
        return Story(jobs=jobs, before=before, after=settled(gpuq, before), samples=samples)


@contextmanager
def looked_on(gpuq: Gpuq) -> Iterator[None]:
    """By some screens, and by followers of the events in a process of their own."""
    with ExitStack() as stack:
        stack.enter_context(watching(gpuq, FOLLOWERS))
        for _ in range(SCREENS):
            stream = gpuq.client.subscribe()
            thread = threading.Thread(target=_read, args=(iter(stream),))
            thread.start()
            stack.callback(thread.join)
            stack.callback(stream.close)
        yield


def _read(parts: Iterator[object]) -> None:
    for _ in parts:
        pass


def lived_through(gpuq: Gpuq, jobs: int, seconds: float) -> list[Sample]:
    """Submits at an even pace, and looks at the daemon every now and then."""
    began, submitted = time.monotonic(), 0
    samples: list[Sample] = []
    while submitted < jobs:
        at_s = time.monotonic() - began
        if at_s >= len(samples) * seconds / SAMPLES:
            samples.append(sample(gpuq, at_s, submitted))
        due = min(int(jobs * (at_s + PACE_S) / seconds) + 1, jobs)
        if due > submitted:
            gpuq.client.submit_many(
                [{"argv": JOBS[n % len(JOBS)], "gpus": 1} for n in range(submitted, due)]
            )
            submitted = due
        time.sleep(PACE_S)
    proc.wait_for(lambda: not gpuq.client.jobs(limit=1), "the end of all jobs", pause_s=0.05)
    samples.append(sample(gpuq, time.monotonic() - began, submitted))
    return samples


def sample(gpuq: Gpuq, at_s: float, submitted: int) -> Sample:
    below = proc.descendants(gpuq.pid)
    leases, ended = counted(gpuq)
    wal = gpuq.state / "gpuq.db-wal"
    return Sample(
        at_s=at_s,
        submitted=submitted,
        ended=ended,
        pss_mb=proc.pss_mb(gpuq.pid),
        all_pss_mb=proc.pss_mb(gpuq.pid) + sum(filter(None, map(_pss_mb, below))),
        fds=proc.open_fds(gpuq.pid),
        threads=proc.threads(gpuq.pid),
        processes=1 + len(below),
        leases=leases,
        files=sum(len(files) for _, _, files in os.walk(gpuq.state)),
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
    )


def settled(gpuq: Gpuq, like: Sample | None) -> Sample:
    """Once what is under way is over, or as it is after some seconds: those who left are forgotten at
    the next look around, not at once."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        now = sample(gpuq, 0.0, 0)
        is_like = like is None or (
            now.fds <= like.fds and now.threads <= like.threads and now.processes <= like.processes
        )
        if (is_like and not now.leases) or time.monotonic() > deadline:
            return now
        time.sleep(0.1)


def counted(gpuq: Gpuq) -> tuple[int, int]:
    """Leases, and jobs that have ended, as the database has them."""
    database = apsw.Connection(str(gpuq.state / "gpuq.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        leases = database.execute("select count(*) from leases").get
        ended = database.execute(
            "select coalesce(sum(last_id - id + 1), 0) from jobs where state = 'ended'"
        ).get
        return int(leases), int(ended)
    finally:
        database.close()


def _pss_mb(pid: int) -> float | None:
    """None: it has ended meanwhile."""
    try:
        return proc.pss_mb(pid)
    except (OSError, ValueError):
        return None


def table(story: Story) -> str:
    head = f"{'s':>6}{'ended':>8}{'PSS MB':>8}{'all MB':>8}{'fds':>5}{'threads':>8}"
    head += f"{'processes':>10}{'leases':>7}{'files':>8}{'WAL MB':>8}"
    step = max(len(story.samples) // 12, 1)
    lines = [head, *map(_line, [*story.samples[:-1:step], story.samples[-1], story.after])]
    for what, figure in GROWING.items():
        lines.append(f"{what}: {story.growth_percent(figure):+.1f} % after the warm-up")
    lines.append(f"files for each job: {story.files_for_each_job():.2f}")
    return "\n".join(lines)


def _line(one: Sample) -> str:
    return (
        f"{one.at_s:6.0f}{one.ended:8,}{one.pss_mb:8.1f}{one.all_pss_mb:8.1f}{one.fds:5}"
        f"{one.threads:8}{one.processes:10}{one.leases:7}{one.files:8,}{one.wal_bytes / 1e6:8.1f}"
    )


if __name__ == "__main__":
    main()
