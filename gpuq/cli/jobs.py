"""`gpuq status`: what runs, what waits, and for what."""

from __future__ import annotations

from typing import NamedTuple

from gpuq.cli import console
from gpuq.cli.fold_text import active_in, on_gpus
from gpuq.cli.gpu_text import are_simulated, census, gpu_table
from gpuq.cli.job_text import (
    ORDERS,
    PIPE_COLUMNS,
    chosen_table,
    column_values,
    in_order,
    job_row,
    job_table,
)
from gpuq.cli.render import Gpu, Job, Look, clip, plain, printable
from gpuq.errors import NothingMatched, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Annotated, Any

    import typer

    from gpuq.cli.declaring import Argument, Option
    from gpuq.client import Client

ROWS_ON_A_TERMINAL = 25
# Columns that say nothing of a group.
OF_ONE_JOB = frozenset(("index", "params", "log", "place", "progress", "metrics"))
NEXT = "next"  # an order that the daemon makes, and of which it tells the beginning
FEWEST_ROWS = 4  # of jobs under --watch: the GPUs give way in a small window


class Query(NamedTuple):
    """Which jobs are asked for, in which order (None: by id), and which columns of them."""

    refs: list[str]
    filters: dict[str, Any]
    since: str | None
    order: str | None
    columns: list[str] | None
    fold: bool = False  # a group of several jobs is one row
    name: str | None = None  # with * and ?


def status(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    mine: Annotated[bool, Option("-m", "--mine", help="Only my own.")] = False,
    user: Annotated[str | None, Option("-u", "--user", metavar="NAME", help="Only theirs.")] = None,
    all_: Annotated[bool, Option("-a", "--all", help="Those that have ended, too.")] = False,
    state: Annotated[
        list[str] | None,
        Option(
            "-s", "--state", metavar="WORD", help="queued, running, failed, held, ...; repeatable."
        ),
    ] = None,
    name: Annotated[
        str | None,
        Option("-n", "--name", metavar="NAME", help="Called so; * and ? stand for any letters."),
    ] = None,
    tag: Annotated[str | None, Option(metavar="TAG", help="Only those with this tag.")] = None,
    queue: Annotated[
        str | None, Option("-q", "--queue", metavar="NAME", help="Only those in this queue.")
    ] = None,
    since: Annotated[
        str | None,
        Option(
            metavar="TIME",
            help="Submitted, started or ended since, those that have ended too: 2h, 2026-07-31, ...",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        Option(metavar="FIELD", help=f"By {', '.join(ORDERS)}; -FIELD from the end."),
    ] = None,
    limit: Annotated[
        int | None, Option(metavar="N", help="At most N; 0: all. On a terminal 25.")
    ] = None,
    columns: Annotated[
        str | None, Option("-o", "--columns", metavar="NAMES", help="These: id,state,time,...")
    ] = None,
    watch: Annotated[
        bool,
        Option(
            "-w", "--watch", help="Redraw it as it changes, until Ctrl-C; on a pipe: add lines."
        ),
    ] = False,
    fold: Annotated[
        bool | None,
        Option(
            "--fold/--unfold",
            help="One row for a group of jobs; the terminal folds what is not named, or chosen by "
            "state or name.",
            show_default=False,
        ),
    ] = None,
    no_trunc: Annotated[bool, Option("--no-trunc", help="Cut nothing to fit.")] = False,
    json: Annotated[bool, Option("--json", help="Print all about them as JSON.")] = False,
) -> int | None:
    """What runs and what waits, everyone's.

    Examples:
      gpuq                       the GPUs, and all that runs or waits
      gpuq status -a -s failed   what failed
      gpuq status 12-18,20       these
      gpuq status g187           each job of a group, which is one row otherwise
      gpuq status -w             watch them
      gpuq status --since 2h --sort -ended
      gpuq status --sort next    what waits, in the order in which it is considered
      gpuq status -n 'grid*' -o id,index,params,log
      gpuq status -w >> queue.log
      gpuq status | cut -f1,2    on a pipe: TAB-separated, no head, all columns
      gpuq status --json | jq '.jobs[] | select(.state == "running")'

    On a pipe the columns are id, state, substate, outcome, name, user, gpus, priority, started,
    ended, reason, command; ST is Q queued, H held, D not due yet, B between two attempts,
    S starting, R running, P paused, K being ended, U unkillable, and of those that have ended
    C succeeded, F failed, X cancelled, T timed out, O out of memory, L lost, N skipped. -o also
    knows exit, group, queue, tags, submitted, time, left, cwd, index, params, log, place, progress
    and metrics. LEFT is what is
    left of a time limit (9:30), about when a job is expected to start (~14:20), or the moment of its
    --begin (from 18:00). --sort next lists the first 500 that may start and leaves out what runs, is
    held, is not due yet or waits for other jobs; a job that fits may pass one that has to wait for room
    or for a limit. With --watch a pipe gets each job once, and again when it moves (state, GPUs,
    priority, name), with the time in front of the columns; with --json a line of all of them whenever
    something has changed. Beside ids a JOB may be @ (your last submission), @~1 (the one before it)
    or a group like g12.
    """
    filters: dict[str, Any] = {
        "mine": mine,
        "all": all_ or since is not None,
        "user": user,
        "states": split_words(state or []),
        "tag": tag,
        "queue": queue,
    }
    query = Query(
        list(jobs or []), filters, since, _order(sort), _columns(columns), bool(fold), name
    )
    if fold and sort == NEXT:
        raise UsageError("--sort next lists each job that may start: it goes without --fold")
    of_each = sort == NEXT or not OF_ONE_JOB.isdisjoint(query.columns or ())
    if fold is None and not (json or jobs or state or name or of_each):
        query = query._replace(fold=console.look(context).terminal)
    if json and columns is not None:
        raise UsageError("--columns and --json exclude each other: JSON has every field")
    if watch and no_trunc and not json:
        raise UsageError("--watch and --no-trunc exclude each other: the picture has to fit")
    with console.connect(context) as client:
        if watch:
            _watch(context, client, query, limit or None, json)
            return None
        look = console.look(context)
        if json:
            console.say_json(jobs=_listed(client, query, look.now, limit or None))
        elif look.terminal:
            look = look._replace(width=10**6) if no_trunc else look
            shown = ROWS_ON_A_TERMINAL if limit is None else limit or None
            answer = _answer(client, query, look.now, shown and shown + 1)
            console.say(*_picture(answer, query, look, shown))
        else:
            found = _listed(client, query, look.now, limit or None)
            names = query.columns or PIPE_COLUMNS
            console.say(*(job_row(job, names, look.now) for job in found))
    return None


def _order(sort: str | None) -> str | None:
    if sort == f"-{NEXT}":
        raise UsageError("--sort next begins with what is next; there is no other end to it")
    if sort is not None and sort.removeprefix("-") not in ORDERS:
        raise UsageError(f"--sort: {sort!r} is no order: {', '.join(ORDERS)}")
    return sort


def _columns(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names, known = split_words([text.lower()]), column_values(0.0)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--columns: {unknown[0]!r} is no column: {', '.join(known)}")
    return names


def split_words(given: Sequence[str]) -> list[str]:
    """What may be repeated and may have commas in it."""
    return [word.strip() for text in given for word in text.split(",")]


# ── asked ──


def _listed(client: Client, query: Query, now: float, limit: int | None) -> list[Job]:
    return _chosen(_answer(client, query, now, limit)["jobs"], query.order, limit)


def _answer(client: Client, query: Query, now: float, limit: int | None) -> dict[str, Any]:
    """The daemon's answer with the jobs of all its pages, the oldest active or the newest first.

    What is first in another order is known only once all are here. Of jobs that are named and more
    than asked for, what runs or waits comes before what has ended.
    """
    if query.order == NEXT and query.name is None:
        return _pages(client, query, now, limit)
    wanted = None if query.order or query.name else limit
    answer = _pages(client, query, now, wanted)
    if not query.refs or wanted is None or len(answer["jobs"]) < wanted:
        return answer
    alive = _pages(client, query, now, wanted, active=True)
    left = max(wanted - len(alive["jobs"]), 0)
    known = {job["id"] for job in alive["jobs"]}
    others = [job for job in answer["jobs"] if job["id"] not in known]
    return answer | {"jobs": alive["jobs"] + others[:left]}


def _pages(
    client: Client, query: Query, now: float, wanted: int | None, **more: Any
) -> dict[str, Any]:
    since = None if query.since is None else read_since(query.since, now)
    if query.order == NEXT or "place" in (query.columns or ()):
        more |= {"places": True, "next": query.order == NEXT}
    jobs: list[Job] = []
    before: int | None = None
    while True:
        answer = client.call(
            "status",
            refs=query.refs,
            before=before,
            limit=wanted,
            since=since,
            fold=query.fold,
            **query.filters,
            **more,
        )
        jobs += answer["jobs"]
        before = answer.get("before")
        if before is None or (wanted is not None and len(jobs) >= wanted):
            return answer | {"jobs": _of_that_name(jobs, query.name)}


def _of_that_name(jobs: list[Job], name: str | None) -> list[Job]:
    if name is None:
        return jobs
    from gpuq.cli.selecting import is_called

    return [job for job in jobs if is_called(job, name)]


def _chosen(jobs: Sequence[Job], order: str | None, limit: int | None) -> list[Job]:
    if order is None:
        return in_order(jobs[:limit])
    return in_order(jobs, order)[:limit]


def read_since(text: str, now: float) -> float:
    """ "2h" ago, or "2026-07-31", "2026-07-31T14:00" by the reader's own clock."""
    from datetime import datetime

    from gpuq.core.units import parse_seconds, quoted

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        pass  # "20260731" is a date, so lengths of time come second
    try:
        return max(now - parse_seconds(text), 0.0)
    except ValueError:
        raise UsageError(
            f"--since: {quoted(text)} is neither a length of time like 2h nor a date like "
            "2026-07-31 or 2026-07-31T14:00"
        ) from None


# ── shown ──


def _watch(
    context: typer.Context, client: Client, query: Query, limit: int | None, json: bool
) -> None:
    from gpuq.cli import watch

    if json:
        watch.print_changes(lambda: _listed(client, query, console.look(context).now, limit))
        return
    if not console.draws():
        _append(context, client, query, limit)
        return

    def picture(columns: int, rows: int) -> list[str]:
        look = console.look(context)._replace(width=columns)
        answer = _answer(client, query, look.now, rows + 1)
        lines = _picture(answer, query, look, limit, rows)
        return [plain(clip(line, columns), look) for line in lines[:rows]]

    watch.redraw(picture)


def _append(context: typer.Context, client: Client, query: Query, limit: int | None) -> None:
    from gpuq.cli import watch

    names = query.columns or PIPE_COLUMNS

    def ask() -> dict[int, watch.Told]:
        now = console.look(context).now
        jobs = _listed(client, query, now, limit)
        return {job["id"]: watch.Told(job_row(job, names, now), _moves(job)) for job in jobs}

    def find_gone(ids: Sequence[int]) -> list[str]:
        """Who has ended is not in the list any more, unless it is one of those too."""
        now = console.look(context).now
        refs = Query(list(map(str, ids)), {"all": True}, None, None, None)
        try:
            jobs = _listed(client, refs, now, None)
        except NothingMatched:  # removed for good meanwhile
            return []
        return [job_row(job, names, now) for job in jobs if job["state"] == "ended"]

    watch.append_changes(ask, find_gone)


def _moves(job: Job) -> tuple[Any, ...]:
    """What of a job is news in a log of them: not why it waits, which is otherwise with every other
    job that starts."""
    names = ("state", "substate", "outcome", "attempt", "gpus", "priority", "name")
    return tuple(job[name] for name in names)


def _picture(
    answer: dict[str, Any], query: Query, look: Look, limit: int | None, rows: int | None = None
) -> list[str]:
    """At most `limit` jobs, and with what stands around them `rows` lines."""
    found = answer["jobs"]
    top = [] if query.refs else _gpu_lines(answer, look)
    if rows is not None:
        around = 3 if answer.get("drained") else 2  # a head and the foot
        room = rows - around - len(top)
        if room < FEWEST_ROWS:
            top, room = [], max(rows - around, 0)
        limit = min(limit or room, room)
    jobs = _chosen(found, query.order, limit)
    names = query.columns
    lines = job_table(jobs, look) if names is None else chosen_table(jobs, names, look)
    hidden = ""
    if len(found) > len(jobs):
        some = query.since or query.refs or query.name or query.order == NEXT
        some = some or any(query.filters.values())
        number = 0 if some else _active(answer) - active_in(jobs)
        how = ": --limit 0" if rows is None else ""
        hidden = f", {f'{number} ' if number > 0 else ''}more not shown{how}"
    where = "" if query.filters.get("all") else " | finished: gpuq history"
    foot = [] if query.refs and not hidden else [plain(_foot(answer, hidden) + where, look)]
    if query.order == NEXT:
        foot.append("not in this order: what runs, is held, not due yet or waits for other jobs")
    if drained := answer.get("drained"):
        why = printable(f"{drained['actor']}: {drained['reason']}")
        foot.append(plain(f"drained by {why}. It starts nothing: gpuq drain --off", look))
    return [*top, *lines, *foot]


def _active(answer: dict[str, Any]) -> int:
    counts = answer["counts"]
    return int(counts["running"]) + int(counts["queued"])


def _gpu_lines(answer: dict[str, Any], look: Look) -> list[str]:
    gpus: list[Gpu] = answer["gpus"]
    lines = gpu_table(gpus, on_gpus(gpus, answer["jobs"]), look)
    if trouble := answer["gpu_trouble"]:
        lines.append(plain(f"no GPUs: {printable(trouble)}", look))
    return [*lines, ""] if lines else []


def _foot(answer: dict[str, Any], hidden: str) -> str:
    counts = answer["counts"]
    yours = counts["queued_yours"]
    whose = f" ({yours} yours)" if yours != counts["queued"] else ""
    machine = f" | {census(answer['gpus'])}" if are_simulated(answer["gpus"]) else ""
    return f"{counts['running']} running, {counts['queued']} queued{whose}{hidden}{machine}"
