"""A short soak: some hundred jobs with watchers leave no descriptor, process or lease behind. The long
one, `make soak`, is the same code."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from bench.soak import Sample, Story
from tests.conftest import clean_environment, processes_with

PROJECT = Path(__file__).parents[2]

CALM = Sample(
    at_s=0.0,
    submitted=0,
    ended=0,
    pss_mb=40.0,
    all_pss_mb=60.0,
    fds=20,
    threads=3,
    processes=4,
    leases=0,
    files=10,
    wal_bytes=4096,
)


def test_a_short_soak_leaves_nothing_behind(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench.soak", "--jobs", "300", "--seconds", "3"),
            *("--room", tmp_path),
        ],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "still there" not in ran.stderr
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def long_story(pss_mb_at_the_end: float, **after: int) -> Story:
    step = (pss_mb_at_the_end - 40.0) / 99
    samples = [
        replace(
            CALM, at_s=float(n), pss_mb=40.0 + n * step, ended=100 * (n + 1), files=500 * (n + 1)
        )
        for n in range(100)
    ]
    ended = replace(CALM, **{"ended": 10_000, "files": 50_000, **after})
    return Story(jobs=10_000, before=CALM, after=ended, samples=samples)


def test_a_soak_in_which_nothing_happens_is_in_order() -> None:
    assert long_story(40.5).troubles() == []


def test_a_soak_names_what_grew() -> None:
    assert long_story(50.0).troubles() == [
        "the memory of the daemon grew by 17.6 % after the warm-up"
    ]


def test_a_soak_names_what_is_left() -> None:
    assert long_story(40.0, fds=23, leases=1, ended=9_999).troubles() == [
        "3 fds are left over (20 before, 23 after)",
        "1 leases are held by nobody",
        "9999 jobs have ended of 10000 that were submitted",
    ]
