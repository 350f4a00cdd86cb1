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


MOVE, LOOK, LIST, ACT, LOG, REST = "Move", "Look", "The list", "Act", "In the log", "The rest"

# Of each screen, and of all of them.
EVERYWHERE = (
    Key("screen.jobs", "1", "screen('jobs')", "the jobs", LOOK),
    Key("screen.gpus", "2", "screen('gpus')", "the GPUs, each with its graph", LOOK),
    Key("screen.history", "3", "screen('history')", "what has ended", LOOK),
    Key("help", "question_mark,f1", "help", "all keys", REST, "Help"),
    Key("palette", "ctrl+p,colon", "command_palette", "what can be done, by name", REST, "Palette"),
    Key("messages", "M", "messages", "what was last said, whole", REST),
    Key("quit", "q,ctrl+c", "quit", "leave; jobs go on", REST),
    Key("suspend", "ctrl+z", "suspend_process", "back to the shell; fg returns", REST),
)
JOBS_SCREEN = (
    Key("pane.next", "tab", "app.focus_next", "the next pane", MOVE),
    Key("pane.previous", "shift+tab", "app.focus_previous", "the pane before", MOVE),
    Key("detail", "enter", "detail", "all about the job under the cursor", LOOK, "Detail"),
    Key("log", "l", "log", "what it writes", LOOK, "Log"),
    Key("back", "escape", "back", "back to the list; forget marks and filter", LOOK),
    Key("tree", "t", "tree", "in detail: what it waits for; in procs: tree or list", LOOK),
    Key("tab.next", "right_square_bracket", "tab(1)", "detail, log, procs, env, graph", LOOK),
    Key("tab.previous", "left_square_bracket", "tab(-1)", "the same backwards", LOOK),
)


# That shape the list of jobs.
THE_LIST = (
    Key("unfold", "right", "fold(True)", "show the jobs of a group", LIST),
    Key("fold", "left", "fold(False)", "a group as one line", LIST),
    Key("mark", "space", "mark", "mark it, and go on to the next", LIST, "Mark"),
    Key("mark.range", "v", "mark_range", "mark from here; once more: up to here", LIST),
    Key("mark.all", "asterisk", "mark_all", "mark all that are shown", LIST),
    Key(
        "filter",
        "slash",
        "filter",
        "words, user:bob state:f gpu:3 !text",
        LIST,
        "Filter",
    ),
    Key("mine", "m", "mine", "my jobs, or those of all", LIST, "Mine/All"),
    Key(
        "state", "s", "state(1)", "all, active, running, queued, held, failed, ended", LIST, "State"
    ),
    Key("state.back", "S", "state(-1)", "the same backwards", LIST),
    Key("sort", "o", "sort", "by id, start, priority, time, user, name, state", LIST, "Sort"),
    Key("sort.turn", "O", "sort_turn", "the other way round", LIST),
    Key("finished", "c", "finished", "show or hide what is done", LIST),
    Key("freeze", "z", "freeze", "let the list stand still, or go on", LIST, "Freeze"),
)
# Where its filter is typed.
FILTER = (
    Key("filter.earlier", "up", "recall(1)", "the filter used before", LIST),
    Key("filter.later", "down", "recall(-1)", "back again", LIST),
    Key("filter.clear", "escape,ctrl+c", "clear", "no filter", LIST),
)
# That change something.
DEEDS = (
    Key("kill", "x", "kill", "end the marked jobs, or this one; asks first", ACT, "Kill", True),
    Key("undo", "u", "undo", "take back the last cancel of jobs that waited", ACT, "", True),
    Key("hold", "h", "hold", "hold jobs that wait, or release them", ACT, "Hold", True),
    Key("requeue", "r", "requeue", "run once more, with the same number", ACT, "Requeue", True),
    Key("priority", "p", "priority", "another priority", ACT, "", True),
    Key("earlier", "K,less_than_sign", "move_job(-1)", "before my job before it", ACT, "", True),
    Key("later", "J,greater_than_sign", "move_job(1)", "behind my next job", ACT, "", True),
    Key("pause", "P", "pause", "let it stand still, or go on", ACT, "", True),
    Key("drain", "D", "drain", "start nothing any more, or start again", ACT, "", True),
    Key("new", "n", "new_job", "write down a new job; the draft before is still there", ACT, "New"),
    Key("duplicate", "d", "duplicate", "the same job once more, changed", ACT, "Duplicate"),
    Key("edit", "e", "edit", "change what a job that waits asks for", ACT, "Edit"),
)
# Of the form of a job.
FORM = (
    Key(
        "form.send",
        "ctrl+s",
        "send",
        "submit what is written, or change the job",
        ACT,
        "Submit",
        True,
    ),
    Key("form.keep", "escape", "keep", "leave, with the draft kept", ACT, "Keep"),
    Key("form.clear", "ctrl+r", "clear", "empty all fields, or as the job has them", ACT, "Clear"),
)
# Of dialogs: what asks yes or no, what asks for a line of text, the end of jobs, and what only tells.
ASKED = (
    Key("dialog.yes", "y", "yes", "yes", ACT),
    Key("dialog.no", "n,escape,enter,q,ctrl+c", "no", "no", ACT),
)
WRITTEN = (Key("dialog.leave", "escape,ctrl+c", "no", "leave, and change nothing", ACT),)
ENDING = (Key("dialog.signal", "s", "signal", "send another signal, and end nothing", ACT),)
TOLD = (Key("dialog.close", "escape,q,M,enter,ctrl+c", "no", "close", REST),)
# Of the log of a job, and of the two other screens.
THE_LOG = (
    Key("log.follow", "f", "follow", "follow it, or no more", LOG, "Follow"),
    Key("log.wrap", "w", "wrap", "wrap long lines, or cut them", LOG, "Wrap"),
    Key("log.times", "T", "times", "when each line came", LOG, "Times"),
    Key("log.errors", "E", "errors", "the file of --stderr, or the log", LOG),
    Key("log.attempt_before", "left_curly_bracket", "attempt(-1)", "the attempt before", LOG),
    Key("log.attempt_after", "right_curly_bracket", "attempt(1)", "the next attempt", LOG),
)
# Of the log, too: while it has the focus they come before those of the screen that are the same.
LOG_FIRST = (
    Key("log.find", "slash", "find", "find in the log", LOG, "Find"),
    Key("log.hit_after", "n", "hit(1)", "the next place that was found", LOG),
    Key("log.hit_before", "N", "hit(-1)", "the one before", LOG),
    Key("log.enlarge", "enter", "enlarge", "on the whole screen, or back", LOG),
    Key("log.left", "left", "sideways(-1)", "to the left", LOG),
    Key("log.right", "right", "sideways(1)", "to the right", LOG),
)
LOG_SCREEN = (Key("log.back", "escape,l", "back", "back from the whole screen", LOG),)
# Of each screen: what can be taken along, and what of it.
MENUS = (
    Key("copy", "y", "copy_menu", "copy id, command, report; uuid of a GPU", REST, "Copy"),
    Key("export", "ctrl+s", "export", "save the screen, the table, the graph", REST),
)
COPYING = (
    Key("copy.id", "i", "take('id')", "its id", REST),
    Key("copy.command", "c", "take('command')", "its command", REST),
    Key("copy.submit", "s", "take('submit')", "gpuq submit …", REST),
    Key("copy.log", "l", "take('log')", "path of its log", REST),
    Key("copy.cwd", "d", "take('cwd')", "its directory", REST),
    Key("copy.report", "r", "take('report')", "report on it", REST),
    Key("copy.marked", "m", "take('marked')", "the marked text", REST),
    Key("copy.leave", "escape,y,ctrl+c", "no", "copy nothing", REST),
)
COPYING_GPU = (
    Key("copy.gpu_index", "i", "take('index')", "its index", REST),
    Key("copy.gpu_uuid", "u", "take('uuid')", "its uuid", REST),
    Key("copy.gpu_model", "m", "take('model')", "its model", REST),
    Key("copy.gpu_drain", "d", "take('drain')", "gpuq gpus drain …", REST),
    Key("copy.gpu_why", "w", "take('why')", "gpuq why …", REST),
    Key("copy.gpu_leave", "escape,y,ctrl+c", "no", "copy nothing", REST),
)
EXPORTING = (
    Key("export.picture", "s", "take('picture')", "screen as SVG", REST),
    Key("export.table", "t", "take('table')", "table as CSV", REST),
    Key("export.graph", "d", "take('graph')", "graph as CSV", REST),
    Key("export.leave", "escape,ctrl+s,ctrl+c", "no", "save nothing", REST),
)
GPUS_SCREEN = (
    Key("graph.what", "w", "what(1)", "utilisation, memory, power, temperature", LOOK, "What"),
    Key("graph.longer", "greater_than_sign,plus", "window(1)", "further back", LOOK, "Longer"),
    Key("graph.shorter", "less_than_sign,minus", "window(-1)", "less far back", LOOK, "Shorter"),
    Key("gpu.drain", "D", "drain", "drain a GPU, or give it out again", ACT, "Drain", acts=True),
)
HISTORY_SCREEN = (
    *(key for key in JOBS_SCREEN if key.id in ("detail", "log", "back")),
    *(key for key in THE_LIST if key.id == "filter"),
    Key("past.end", "s", "state(1)", "any end, bad ones, succeeded, failed, ...", LIST, "State"),
    Key("past.end.back", "S", "state(-1)", "the same backwards", LIST),
    *(key for key in THE_LIST if key.id in ("mark", "mark.range", "mark.all", "mine", "sort.turn")),
    Key(
        "past.sort",
        "o",
        "sort",
        "by end, id, start, priority, time, user, name, state",
        LIST,
        "Sort",
    ),
    Key("past.window", "w", "window(1)", "today, 7 days, 30 days, all", LIST, "Window"),
    Key("past.window.back", "W", "window(-1)", "the same backwards", LIST),
    *(key for key in DEEDS if key.id in ("requeue", "new", "duplicate")),
    Key("past.over", "x,h,p,P,e", "say_over", "nothing: it has ended; run it once more", ACT),
    Key("past.still", "z", "say_still", "nothing: what has ended stands still", LIST),
)
# Of one job that has ended, on the whole screen.
JOB_SCREEN = tuple(
    key
    for key in JOBS_SCREEN
    if key.id in ("pane.next", "log", "back", "tree", "tab.next", "tab.previous")
)

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

# Of the help.
HELP = (Key("help.close", "escape,q,question_mark,f1", "close", "back from the help", LOOK),)

# Where the keys of each table can be pressed.
PLACES = {
    "EVERYWHERE": "every screen",
    "JOBS_SCREEN": "jobs",
    "THE_LIST": "jobs",
    "FILTER": "where the filter is typed",
    "DEEDS": "jobs",
    "FORM": "the form of a job",
    "ASKED": "a question",
    "WRITTEN": "a question for text",
    "ENDING": "the question of a kill",
    "TOLD": "the messages",
    "THE_LOG": "the log",
    "LOG_FIRST": "the log",
    "LOG_SCREEN": "the log on the whole screen",
    "MENUS": "every screen but the form",
    "COPYING": "the menu of y, of a job",
    "COPYING_GPU": "the menu of y, of a GPU",
    "EXPORTING": "the menu of ctrl+s",
    "GPUS_SCREEN": "GPUs",
    "HISTORY_SCREEN": "history",
    "JOB_SCREEN": "a job of the history",
    "TABLE": "lists",
    "TEXT": "text",
    "HELP": "the help",
}

Bindings = list[Binding | tuple[str, str] | tuple[str, str, str]]


def bindings(keys: Iterable[Key]) -> Bindings:
    return [
        Binding(key.keys, key.action, key.label or key.about, show=bool(key.label), id=key.id)
        for key in keys
    ]


def tables() -> dict[str, tuple[Key, ...]]:
    """All of this file, by name."""
    return {
        name: value
        for name, value in globals().items()
        if name.isupper() and isinstance(value, tuple) and all(isinstance(k, Key) for k in value)
    }


def all_keys() -> list[Key]:
    return [key for table in tables().values() for key in table]


def scopes() -> list[tuple[Key, ...]]:
    """Keys that can be pressed in one place, so that none may be two of them."""
    jobs = (*EVERYWHERE, *MENUS, *JOBS_SCREEN, *THE_LIST, *DEEDS)
    return [
        (*jobs, *TABLE),
        (*jobs, *TEXT, *THE_LOG),
        (*EVERYWHERE, *MENUS, *LOG_SCREEN, *TEXT, *THE_LOG, *LOG_FIRST),
        (*COPYING, *TEXT),
        (*COPYING_GPU, *TEXT),
        (*EXPORTING, *TEXT),
        (*EVERYWHERE, *MENUS, *GPUS_SCREEN, *TABLE),
        (*EVERYWHERE, *MENUS, *HISTORY_SCREEN, *TABLE),
        (*ASKED, *ENDING, *TEXT),
        (*TOLD, *TEXT),
        (*HELP, *TEXT),
        (*EVERYWHERE, *JOB_SCREEN, *TEXT),
        (*EVERYWHERE, *FORM),
    ]


def beside_fields() -> tuple[Key, ...]:
    """What is pressed while a field for text has the focus, which takes letters for its own."""
    return (*FILTER, *FORM, *WRITTEN, *(key for key in ASKED if key.id == "dialog.no"))


BY_ID = {key.id: key for key in all_keys()}
# The actions that change something.
ACTING = frozenset(key.action for key in all_keys() if key.acts)
