"""Worlds at random, of a kind, each by its number."""

import random
from dataclasses import dataclass, replace

from tests.worlds import Stranger, Task, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the worlds are like that are drawn. Of the limits: the share of the jobs that have one, and
    by how much people ask for too long."""

    name: str
    jobs: tuple[int, int] = (3, 10)
    gpus: tuple[int, int] = (1, 4)
    limited: float = 1.0
    overestimate: tuple[float, float] = (1.0, 1.0)
    guessed: float = 0.0
    sharing: float = 0.0
    cpu_only: float = 0.0
    priorities: int = 0
    users: int = 1
    strangers: int = 0
    stubborn: float = 0.0
    ranked: bool = False
    spread_s: float = 300.0


def draw(kind: Kind, seed: int, max_bypass: int | None = None) -> World:
    """The same world for the same seed."""
    chance = random.Random(f"{kind.name} {seed}")
    gpus = chance.randint(*kind.gpus)
    tasks = [_draw_task(kind, chance, id, gpus) for id in range(1, chance.randint(*kind.jobs) + 1)]
    comes = sorted(task.comes_at for task in tasks)
    return World(
        gpus=gpus,
        tasks=tuple(replace(task, comes_at=at) for task, at in zip(tasks, comes, strict=True)),
        strangers=tuple(_draw_stranger(chance, gpus) for _ in range(kind.strangers)),
        cpu_slots=4,
        max_bypass=chance.choice([0, 1, 3, 10]) if max_bypass is None else max_bypass,
    )


def _draw_task(kind: Kind, chance: random.Random, id: int, most_gpus: int) -> Task:
    gpus = 0 if chance.random() < kind.cpu_only else chance.randint(1, most_gpus)
    runs_s = float(chance.choice([5, 20, 60, 100, 300, 900]) + chance.randint(0, 30))
    limit_s: float | None = round(runs_s * chance.uniform(*kind.overestimate), 1)
    if chance.random() >= kind.limited:
        limit_s = None
    is_stubborn = chance.random() < kind.stubborn
    guess_s = runs_s * chance.choice([0.5, 1.0, 1.5, 3.0])
    return Task(
        id=id,
        gpus=gpus,
        runs_s=runs_s * 3 if is_stubborn and limit_s is not None else runs_s,
        comes_at=chance.choice([0.0, round(chance.uniform(0.0, kind.spread_s), 1)]),
        limit_s=limit_s,
        lasts_s=guess_s if chance.random() < kind.guessed else None,
        mem_gib=chance.choice([2, 7, 12]) if gpus and chance.random() < kind.sharing else None,
        cpus=chance.randint(1, 4),
        priority=chance.randint(-kind.priorities, kind.priorities),
        rank=chance.randint(-1, 1) if kind.ranked else 0,
        uid=chance.randint(1, kind.users),
        is_stubborn=is_stubborn,
    )


def _draw_stranger(chance: random.Random, gpus: int) -> Stranger:
    comes_at = chance.uniform(0.0, 600.0)
    goes_at = comes_at + chance.uniform(10.0, 600.0)
    return Stranger(gpu=chance.randrange(gpus), comes_at=comes_at, goes_at=goes_at)
