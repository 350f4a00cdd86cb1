"""The processes of a job as a tree, or with those first that compute most."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpuq.cli.render import DIM, cut, printable, width
from gpuq.core.units import count, format_bytes
from gpuq.tui.data.pieces import Pieces

Process = Mapping[str, Any]
Answer = Mapping[str, Any]
COMMAND_LEAST = 12  # cells
Percents = Mapping[int, float | None]


def process_lines(
    found: Answer, before: Answer | None, room: int, *, is_tree: bool
) -> list[Pieces]:
    """`before` is the answer before that: what was used of CPUs since then, nobody else can tell."""
    processes = found["processes"]
    if not processes:
        return [[(found["why"] or "", DIM)]]
    percents = cpu_percents(found, before)
    branches = _tree(processes) if is_tree else _by_use(processes, percents)
    fronts = [(f"{branch}{one['pid']} ", one) for branch, one in branches]
    has_gpu = any(one["gpu_memory_bytes"] is not None for one in processes)
    left = room - max(width(front) for front, _ in fronts) - COMMAND_LEAST
    has_memory = not has_gpu or width(_uses(processes[0], None, has_gpu=True)) <= left
    lines: list[Pieces] = []
    for front, one in fronts:
        uses = _uses(one, percents[one["pid"]], has_memory=has_memory, has_gpu=has_gpu)
        lines.append(_line(front, one, uses, room))
    return [*lines, [(_sum(found, percents), DIM)]]


def cpu_percents(found: Answer, before: Answer | None) -> Percents:
    """Of one CPU, since the answer before; None where it was not in that."""
    known: dict[int, float] = {}
    passed_s = 0.0
    if before is not None and before["attempt"] == found["attempt"]:
        known = {one["pid"]: one["cpu_s"] for one in before["processes"]}
        passed_s = found["at"] - before["at"]
    return {one["pid"]: _percent(one, known, passed_s) for one in found["processes"]}


def _percent(one: Process, known: Mapping[int, float], passed_s: float) -> float | None:
    used_s = one["cpu_s"] - known.get(one["pid"], one["cpu_s"] + 1)
    if passed_s <= 0 or used_s < 0:  # a pid that was given to another process meanwhile
        return None
    return float(used_s / passed_s * 100)


def _tree(processes: Sequence[Process]) -> Iterator[tuple[str, Process]]:
    """Each behind its branches; those whose parents are none of them stand at the trunk."""
    pids = {one["pid"] for one in processes}
    below: dict[int | None, list[Process]] = {}
    for one in processes:
        below.setdefault(one["ppid"] if one["ppid"] in pids else None, []).append(one)

    def grown(parent: int | None, trunk: str) -> Iterator[tuple[str, Process]]:
        children = below.pop(parent, [])
        for number, one in enumerate(children):
            is_last = number == len(children) - 1
            yield trunk + ("└ " if is_last else "├ "), one
            yield from grown(one["pid"], trunk + ("  " if is_last else "│ "))

    yield from grown(None, "")
    # Pids that were read one after the other can make a ring, to which no branch leads.
    yield from (("? ", one) for ring in below.values() for one in ring)


def _by_use(processes: Sequence[Process], percents: Percents) -> Iterator[tuple[str, Process]]:
    def use(one: Process) -> tuple[float, int]:
        return percents[one["pid"]] or 0.0, one["rss_bytes"]

    return (("  ", one) for one in sorted(processes, key=use, reverse=True))


def _uses(one: Process, percent: float | None, *, has_memory: bool = True, has_gpu: bool) -> str:
    """In a narrow pane the memory of a GPU is what is wanted; the sum below says the other."""
    cpu = "–" if percent is None else f"{percent:.0f}%"
    uses = f"  cpu {cpu:>5}"
    if has_memory:
        uses += f"  {format_bytes(one['rss_bytes']):>5}"
    if has_gpu:
        uses += f"  gpu {format_bytes(one['gpu_memory_bytes']):>5}"
    return uses


def _line(front: str, one: Process, uses: str, room: int) -> Pieces:
    """ "├ 51220 python eval.py  cpu 112%  4.1G  gpu 21.5G" """
    left = max(room - width(uses) - width(front), COMMAND_LEAST)
    command = cut(printable(_called(one["command"])) + _state(one), left)
    return [
        (front, DIM),
        (command + " " * (left - width(command)), ""),
        (uses, ""),
    ]


def _called(command: Sequence[str]) -> str:
    """Without the folder of its program; of one that has given itself a title, that."""
    if not command:
        return "–"
    first, *rest = command
    return " ".join([first if " " in first else first.rpartition("/")[2] or first, *rest])


def _state(one: Process) -> str:
    """What is worth a word: it hangs in the kernel, or stands still."""
    return {"D": " (in the kernel)", "T": " (stopped)", "t": " (traced)"}.get(one["state"], "")


def _sum(found: Answer, percents: Percents) -> str:
    processes = found["processes"]
    told = count(len(processes) + found["left_out"], "process").replace("processs", "processes")
    known = [percent for percent in percents.values() if percent is not None]
    parts = [told, f"{format_bytes(sum(one['rss_bytes'] for one in processes))} in memory"]
    if known:
        parts.append(f"cpu {sum(known):.0f}%")
    if found["left_out"]:
        parts.append(f"the first {len(processes)} are shown")
    return ", ".join(parts)
