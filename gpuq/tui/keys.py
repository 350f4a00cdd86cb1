"""Every key: what it is called in the settings, what it does, where, and in how many words. The
bindings, the help and the line at the foot are all made of these tables."""

from collections.abc import Iterable
from typing import NamedTuple

from textual.binding import Binding


class Key(NamedTuple):
    """`id` is what the settings call it, `action` what is done. `acts`: it changes something, so it is
    off while no daemon answers and where one may only look. `label` stands at the foot ("": not there).
    """

    id: str
    keys: str
    action: str
    about: str
    panel: str
    label: str = ""
    acts: bool = False


MOVE, LOOK, ACT, LOG, REST = "Move", "Look", "Act", "In the log", "The rest"

# Of each screen, and of all of them.
EVERYWHERE = (
    Key("screen.jobs", "1", "screen('jobs')", "the jobs", LOOK),
    Key("screen.gpus", "2", "screen('gpus')", "the GPUs, each with its graph", LOOK),
    Key("screen.history", "3", "screen('history')", "what has ended", LOOK),
    Key("help", "question_mark,f1", "help", "all keys", REST, "Help"),
    Key("palette", "ctrl+p,colon", "command_palette", "find what can be done by its name", REST),
    Key("quit", "q,ctrl+c", "quit", "leave; jobs go on", REST),
    Key("suspend", "ctrl+z", "suspend_process", "back to the shell; fg returns", REST),
)
JOBS_SCREEN = (
    Key("pane.next", "tab", "app.focus_next", "the next pane", MOVE),
    Key("pane.previous", "shift+tab", "app.focus_previous", "the pane before", MOVE),
    Key("detail", "enter", "detail", "all about the job under the cursor", LOOK, "Detail"),
    Key("log", "l", "log", "what it writes", LOOK, "Log"),
    Key("back", "escape", "back", "back to the list; forget marks and filter", LOOK),
    Key("tab.next", "right_square_bracket", "tab(1)", "detail, log, procs, env, graph", LOOK),
    Key("tab.previous", "left_square_bracket", "tab(-1)", "the same backwards", LOOK),
)


# That shape the list of jobs.
THE_LIST: tuple[Key, ...] = ()
# That change something.
DEEDS: tuple[Key, ...] = ()
# Of the log of a job, and of the two other screens.
THE_LOG: tuple[Key, ...] = ()
GPUS_SCREEN: tuple[Key, ...] = ()
HISTORY_SCREEN: tuple[Key, ...] = ()

# Of every table of lines.
TABLE = (
    Key("move.down", "down,j", "move(1)", "down", MOVE),
    Key("move.up", "up,k", "move(-1)", "up", MOVE),
    Key("move.page_down", "pagedown,ctrl+d", "page(1)", "a page down", MOVE),
    Key("move.page_up", "pageup,ctrl+u", "page(-1)", "a page up", MOVE),
    Key("move.first", "home,g", "first", "to the first", MOVE),
    Key("move.last", "end,G", "last", "to the last", MOVE),
)

# Of text that is read.
TEXT = (
    Key("text.down", "down,j", "scroll_down", "down", MOVE),
    Key("text.up", "up,k", "scroll_up", "up", MOVE),
    Key("text.page_down", "pagedown", "page_down", "a page down", MOVE),
    Key("text.page_up", "pageup", "page_up", "a page up", MOVE),
    Key("text.first", "home,g", "scroll_home", "to the beginning", MOVE),
    Key("text.last", "end,G", "scroll_end", "to the end", MOVE),
)

Bindings = list[Binding | tuple[str, str] | tuple[str, str, str]]


def bindings(keys: Iterable[Key]) -> Bindings:
    return [
        Binding(key.keys, key.action, key.label or key.about, show=bool(key.label), id=key.id)
        for key in keys
    ]
