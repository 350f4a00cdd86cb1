"""What the order is worth: starvation, delay of who is first, and use of the GPUs, in random worlds.

    .venv/bin/python bench/order.py                 the tables, in a minute or two
    .venv/bin/python bench/order.py --worlds 1000   of so many worlds each
    .venv/bin/python bench/order.py --json          the figures

A world is drawn from its number, so that the same worlds come each time. In small ones every schedule
is tried (branch and bound), to find the best that somebody could have done who knew all beforehand; in
large ones a bound stands for it that no schedule can beat. Times are of the simulated clock, but for
the last table, which says how long one look at a large queue takes here.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpuq.core.scheduling.forecast import forecast
from gpuq.core.scheduling.scheduler import plan
from tests.best_order import best_makespan_s, least_makespan_s
from tests.builders import active, gpu, job, lease
from tests.builders import world as snapshot_of
from tests.drawn_worlds import Kind, draw
from tests.worlds import Lived, Task, World, live, strictly_in_order

Row = dict[str, object]

# The same worlds for each, but for what is known of the jobs.
KINDS = {
    "true limits": Kind(name="bench"),
    "limits up to 5 times too long": Kind(name="bench", overestimate=(1.0, 5.0)),
    "limits, half of them": Kind(name="bench", limited=0.5, overestimate=(1.0, 3.0)),
    "no limits, runs learned": Kind(name="bench", limited=0.0, guessed=1.0),
    "no limits": Kind(name="bench", limited=0.0),
}
SMALL = {"jobs": (4, 7), "gpus": (2, 4), "spread_s": 200.0}
LARGE = {"jobs": (40, 60), "gpus": (4, 8), "spread_s": 1500.0}
MAX_BYPASS = 10  # the setting as it comes
STRICT = "strict order"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    tables = {
        "Small worlds (4-7 jobs, 2-4 GPUs), against the best of all schedules": small(asked.worlds),
        "Large worlds (40-60 jobs, 4-8 GPUs), against a bound below any schedule": large(
            max(asked.worlds // 5, 1)
        ),
        "Promises, over mixed worlds (shares, CPU jobs, stubborn ones)": promises(asked.worlds * 2),
        "A job for all of 4 GPUs, while one for a single GPU (60 s) comes every 16 s": floods(),
        "One turn": turns(),
    }
    if asked.json:
        print(json.dumps(tables, indent=2))
    else:
        for title, rows in tables.items():
            print(f"{title}\n\n{as_table(rows)}\n")


# ── use of the GPUs ──


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One world, lived in by each order and with each knowledge of the jobs."""

    least_s: float
    lived: dict[str, Lived]


def small(worlds: int) -> list[Row]:
    compared = compare(worlds, SMALL, best_makespan_s)
    rows: list[Row] = []
    for name in (STRICT, *KINDS):
        ratios = [one.lived[name].makespan_s / one.least_s for one in compared]
        rows.append(
            {
                "jobs have": name,
                "worlds": len(compared),
                "the best in": f"{mean(ratio < 1.001 for ratio in ratios):.0%}",
                "longer than the best": f"{mean(ratios) - 1:.1%}",
                "at worst": f"{max(ratios) - 1:.0%}",
                "mean wait": f"{mean(one.lived[name].mean_wait_s() for one in compared):.0f} s",
            }
        )
    return rows


def large(worlds: int) -> list[Row]:
    compared = compare(worlds, LARGE, least_makespan_s)
    rows: list[Row] = []
    for name in (STRICT, *KINDS):
        lived = [one.lived[name] for one in compared]
        ratios = [one.lived[name].makespan_s / one.least_s for one in compared]
        rows.append(
            {
                "jobs have": name,
                "worlds": len(compared),
                "GPUs used": f"{mean(one.utilisation() for one in lived):.1%}",
                "longer than the bound": f"{mean(ratios) - 1:.1%}",
                "mean wait": f"{mean(one.mean_wait_s() for one in lived):.0f} s",
            }
        )
    return rows


def compare(
    worlds: int, shape: dict[str, object], least: Callable[[World], float | None]
) -> list[Compared]:
    """Without the worlds of which the best could not be found in reasonable time."""
    compared = []
    for seed in range(worlds):
        shaped = {name: replace(kind, **shape) for name, kind in KINDS.items()}  # type: ignore[arg-type]
        drawn = {name: draw(kind, seed, MAX_BYPASS) for name, kind in shaped.items()}
        world = drawn["true limits"]
        least_s = least(world)
        if least_s is not None:
            lived = {name: live(one) for name, one in drawn.items()}
            lived[STRICT] = live(world, strictly_in_order)
            compared.append(Compared(least_s=least_s, lived=lived))
    return compared


# ── promises ──


def promises(worlds: int) -> list[Row]:
    rows: list[Row] = []
    for name, kind in KINDS.items():
        mixed = replace(kind, sharing=0.4, cpu_only=0.2, stubborn=0.1, users=3)
        lived = [live(draw(mixed, seed, MAX_BYPASS)) for seed in range(worlds)]
        promised = [by for one in lived for by in one.promised.values() if by < float("inf")]
        passes = [max(one.passes.values(), default=0) for one in lived]
        is_known = kind.limited == 1.0
        rows.append(
            {
                "jobs have": name,
                "worlds": worlds,
                "never started": sum(len(one.world.tasks) - len(one.started_at) for one in lived),
                "most often passed": max(passes),
                "were first and blocked": sum(len(one.first_since) for one in lived),
                "of them promised a start": len(promised),
                "latest after that": (
                    f"{max(one.head_delay_s() for one in lived):.1f} s"
                    if is_known
                    else "no promise"
                ),
            }
        )
    return rows


def floods() -> list[Row]:
    """Without a bound the large job would not start before the small ones cease to come."""
    rows: list[Row] = []
    for name, limit_s in (("no limits", None), ("limits of twice the run", 120.0)):
        for most in (0, MAX_BYPASS, 10**6):
            small = [Task(id, comes_at=id * 16.0, limit_s=limit_s) for id in range(1, 301)]
            large = Task(1000, gpus=4, comes_at=65.0, limit_s=limit_s)
            lived = live(World(gpus=4, tasks=(*small, large), max_bypass=most))
            rows.append(
                {
                    "jobs have": name,
                    "max_bypass": most,
                    "passed": lived.passes[large.id],
                    "it waited": f"{lived.started_at[large.id] - large.comes_at:.0f} s",
                    "mean of all": f"{lived.mean_wait_s():.0f} s",
                }
            )
    return rows


# ── what it costs ──


def turns() -> list[Row]:
    """A machine of eight GPUs, all taken or all but one."""
    cards = [gpu(index) for index in range(8)]
    runners = [active(90 + n, running_since=1000.0, time_limit_s=2000.0 + n) for n in range(8)]
    taken = [lease(index, 90 + index) for index in range(8)]
    shapes = [job(mem=f"{1000 + number}M", limit_s=5000.0) for number in range(10_000)]
    head = job(gpus=8, passes=10)
    worlds = {
        "10,000 jobs of one shape, all GPUs taken": ([job()] * 10_000, taken, 16),
        "10,000 shapes, all GPUs taken": (shapes, taken, 16),
        "1,000 shapes kept back for the first": ([head, *shapes[:1000]], taken[:7], 16),
        "10,000 shapes kept back for the first": ([head, *shapes], taken[:7], 16),
        "100 shapes of 16 jobs, all GPUs taken": (
            [one for one in shapes[:100] for _ in range(16)],
            taken,
            16,
        ),
    }
    rows: list[Row] = []
    for name, (queue, held, shown) in worlds.items():
        seen = snapshot_of(cards, queue, held, runners[: len(held)], per_class=shown)
        rows.append(
            {
                "queue": name,
                "a turn": f"{fastest_s(lambda: plan(seen)) * 1000:.1f} ms",  # noqa: B023
                "a forecast": f"{fastest_s(lambda: forecast(seen), 1) * 1000:.0f} ms",  # noqa: B023
            }
        )
    return rows


def fastest_s(deed: Callable[[], object], times: int = 3) -> float:
    took = []
    for _ in range(times):
        began = time.process_time()
        deed()
        took.append(time.process_time() - began)
    return min(took)


def as_table(rows: Sequence[Row]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
