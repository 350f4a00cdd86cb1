"""How a GPU's line is laid out: how many rows there are for GPUs, and which columns in a width.

The widths depend on the window and on which GPUs there are, never on what they read just now: nothing
jumps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpuq.core.units import format_bytes
from gpuq.tui.data.picture import Gpu

LOW, WIDE = (
    24,
    120,
)  # windows lower than that have no room; as wide ones have the pane beside the jobs
BESIDE_ROWS = 3  # the line at the top, the message, the keys
# That the jobs keep, with their head, and the least that is read in the pane about one of them.
LIST_ROWS, PANE_ROWS = 9, 4
INDEX_CELLS, MARK_CELLS, BAR_CELLS = 2, 2, 10
UTIL_CELLS, TEMPERATURE_CELLS, WATT_CELLS, LIMIT_CELLS = 5, 5, 5, 9
LONGEST_MODEL = 14
MINUTE_S, FIVE_MINUTES_S = 60.0, 300.0


def strip_rows(gpus: int, width: int, height: int) -> int:
    """With the head; 1: they are folded into one line; 0: there is no room for that. Where not all
    find room above the jobs, the pane below the jobs has its own, too."""
    room = height - BESIDE_ROWS - LIST_ROWS
    if not gpus or height < LOW:
        return 1 if room > 0 else 0
    if gpus < room:
        return gpus + 1
    return room if width >= WIDE else room - PANE_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Cells of each column, 0: it is not there. `occupation` is what is left for whose it is."""

    model: int = 0
    bar: int = 0
    memory: int
    history: int = 0
    window_s: float = FIVE_MINUTES_S  # of the history
    temperature: int = 0
    watts: int = 0
    with_limit: bool = False
    occupation: int = 0

    @property
    def front(self) -> int:
        """All cells but those of whose it is, each column with the gap before or behind it."""
        columns = (self.model, self.bar, self.memory)
        used = INDEX_CELLS + MARK_CELLS + sum(cells + 1 for cells in columns if cells) - 1
        used += UTIL_CELLS + (self.history + 1 if self.history else 0)
        return used + self.temperature + self.watts + 2


def form(width: int, gpus: Sequence[Gpu], *, with_history: bool = True) -> Form:
    """The richest that leaves room for whose the GPUs are."""
    memory = 6 + max((len(format_bytes(gpu["memory_total_bytes"])) for gpu in gpus), default=3)
    names = (len(short_model(gpu["model"])) for gpu in gpus)
    model = min(max(names, default=0), LONGEST_MODEL)
    forms = _forms(memory, model)
    if not with_history:  # which stands elsewhere
        forms = [(replace(one, history=0), least) for one, least in forms]
    fitting = (one for one, least in forms if one.front + least <= width)
    chosen = next(fitting, Form(memory=memory))
    return replace(chosen, occupation=max(width - chosen.front, 0))


def _forms(memory: int, model: int) -> list[tuple[Form, int]]:
    """From the richest on, each with the least room for whose it is."""
    bare = Form(memory=memory)
    minute = replace(bare, history=10, window_s=MINUTE_S)
    barred = replace(minute, bar=BAR_CELLS)
    read = replace(barred, temperature=TEMPERATURE_CELLS, watts=WATT_CELLS)
    named = replace(read, model=model, window_s=FIVE_MINUTES_S)
    limited = replace(named, watts=LIMIT_CELLS, with_limit=True)
    return [
        *((replace(limited, history=cells), 30) for cells in (60, 50, 30)),
        *((replace(named, history=cells), 30) for cells in (30, 20)),
        (read, 22),
        (barred, 18),
        (minute, 16),
    ]


def short_model(model: str) -> str:
    """Without the words that all models begin with."""
    return model.removeprefix("NVIDIA ").removeprefix("GeForce ")
