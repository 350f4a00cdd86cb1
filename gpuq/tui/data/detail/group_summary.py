"""What came of a group of jobs, as the lines of a pane: in the words of `gpuq group`."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.cli.render import DIM, Look
from gpuq.cli.results.group_text import summary
from gpuq.tui.data.pieces import Pieces, sentences

# Of such a metric less is better, as far as one can guess; which was taken is said with the best.
_LESS_IS_BETTER = ("loss", "err", "ppl", "perplexity", "mae", "mse", "wer", "fid")


def goal_of(reported: Sequence[str]) -> str | None:
    """By which of the metrics that jobs reported the best is told, "acc:max"; None: by none."""
    if not reported:
        return None
    metric = reported[0]
    is_less = any(word in metric.lower() for word in _LESS_IS_BETTER)
    return f"{metric}:{'min' if is_less else 'max'}"


def group_lines(group: Mapping[str, Any], now: float, room: int) -> list[Pieces]:
    look = Look(width=room, now=now)
    lines: list[Pieces] = [[(line, "")] for line in summary(group, look)]
    others = [name for name in group["reported"] if not _is_told(group, name)]
    if others:
        told = f"also reported: {', '.join(others)}. The best by another: gpuq group --best"
        lines += sentences([told], room, DIM)
    return [*lines, *sentences([f"all of its jobs: gpuq group {group['name']}"], room, DIM)]


def _is_told(group: Mapping[str, Any], name: str) -> bool:
    return group["best"] is not None and group["best"]["metric"] == name
