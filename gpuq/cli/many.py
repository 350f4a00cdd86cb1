"""`gpuq submit --from FILE`: a job for each line, batch by batch, all in one group."""

import os
import re
import select
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from gpuq.cli import console
from gpuq.cli.asking import ask
from gpuq.cli.foresight import foresee
from gpuq.cli.groups import await_group
from gpuq.cli.lines import read_line
from gpuq.cli.many_options import MANY
from gpuq.client import Client
from gpuq.core.units import count
from gpuq.errors import GpuqError, NothingMatched, UsageError

MOST_IN_BATCH = 500  # while the daemon stores them nobody else is answered
MOST_BYTES_IN_BATCH = 2 * 2**20
IDLE_S = 0.2  # what a pipe has brought is queued once it is quiet for so long
LONGEST_LINE = 4 * 2**20
# The names of columns; a single one may as well be a command.
_HEADER = re.compile(r'\s*"?[A-Za-z_]\w*"?(\s*,\s*"?[A-Za-z_]\w*"?)+\s*')

Job = dict[str, Any]


def submit_from(
    context: typer.Context,
    source: str,
    options: Job,
    *,
    wait: bool,
    json: bool,
    dry_run: bool,
) -> int:
    """Queues what the lines say; prints the group's name as soon as it has one."""
    if source.lower().endswith(".csv"):
        raise UsageError(_is_table(source, "its name says"))
    ask(context, ["-"], options)  # what is wrong with them is no line's fault
    reader = _Reader(context, source, options)
    if dry_run:
        return _foretell(context, reader, json)
    with console.connect(context, autostart=True) as client:
        queued = _Queued(context, client, source, json)
        try:
            for batch in reader.batches():
                queued.add(batch)
        except KeyboardInterrupt:
            console.note(f"interrupted. {queued.so_far()}")
            raise
        except GpuqError as error:
            said = str(error).rstrip(".")
            stop = "" if said.endswith("?") else "."
            raise type(error)(f"{said}{stop} {queued.so_far()}") from None
        if queued.group is None:
            raise NothingMatched(f"{_name(source)} holds no command: nothing was queued")
        queued.conclude()
        return await_group(client, queued.group, json=json) if wait else 0


def check_lines_say_all(words: Sequence[str] | None, follow: bool, options: Job) -> None:
    """The lines say what to run."""
    if follow:
        raise UsageError("--follow follows one job, and --from brings many: gpuq logs -f ID")
    if words:
        raise UsageError(f"--from says what to run, so {words[0]!r} has no place beside it")
    for name in ("shell", *MANY):
        if options[name]:
            raise UsageError(f"--from has a job in each line: --{name} has no place beside it")


def _foretell(context: typer.Context, reader: "_Reader", json: bool) -> int:
    from gpuq.cli.dry_run import show_verdicts

    jobs = [job for batch in reader.batches() for job in batch.jobs]
    with console.connect(context) as client:
        code = show_verdicts(client, jobs, json)
    console.say_kept(context)
    return code


# ── reading ──


class _Batch:
    """Jobs that are queued together or not at all, and the lines that they are from."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.lines: list[int] = []
        self._bytes = 0

    def add(self, line: int, job: Job) -> None:
        self.jobs.append(job)
        self.lines.append(line)
        words = sum(map(len, job["argv"])) + len(job.get("script") or "")
        self._bytes += 1024 + words

    @property
    def is_full(self) -> bool:
        return len(self.jobs) >= MOST_IN_BATCH or self._bytes >= MOST_BYTES_IN_BATCH

    def __str__(self) -> str:
        first, last = self.lines[0], self.lines[-1]
        return f"line {first}" if first == last else f"lines {first} to {last}"


class _Reader:
    """Lines as jobs, with the options of the command line where they say nothing else."""

    def __init__(self, context: typer.Context, source: str, options: Job) -> None:
        self._context = context
        self._source = source
        self._options = options
        self._by_program: dict[str, Job] = {}  # a script says the same in each line

    def batches(self) -> Iterator[_Batch]:
        batch, number = _Batch(), 0
        for line in self._lines():
            if line is not None:
                number += 1
                job = self._job(number, line)
                if job is None:
                    continue
                batch.add(number, job)
            if batch.is_full or (line is None and batch.jobs):
                yield batch
                batch = _Batch()
        if batch.jobs:
            yield batch

    def _job(self, number: int, line: str) -> Job | None:
        if number == 1 and _HEADER.fullmatch(line):
            raise UsageError(_is_table(self._source, "its first line says"))
        try:
            entry = read_line(line)
            return None if entry is None else self._filled(entry)
        except UsageError as error:
            raise UsageError(f"{_name(self._source)}, line {number}: {error}") from None

    def _filled(self, entry: Job) -> Job:
        program = entry["argv"][0]
        if program not in self._by_program:
            asked = ask(self._context, [program], self._options)
            foresee(self._context, {**asked, **entry})
            self._by_program[program] = asked
        default = self._by_program[program]
        env = {**(default.get("env") or {}), **(entry.get("env") or {})}
        return {**default, **entry, "env": env}

    def _lines(self) -> Iterator[str | None]:
        """None where nothing has come for a while."""
        fd = _open(self._source)
        left = b""
        while True:
            if not select.select([fd], [], [], IDLE_S)[0]:
                yield None
                select.select([fd], [], [])
            data = self._read(fd)
            *lines, left = (left + data).split(b"\n")
            yield from map(_text, lines)
            if len(left) > LONGEST_LINE:
                raise UsageError(f"{_name(self._source)}: a line of more than {LONGEST_LINE} bytes")
            if not data:
                break
        if left:
            yield _text(left)

    def _read(self, fd: int) -> bytes:
        try:
            return os.read(fd, 2**16)
        except OSError as error:
            raise UsageError(f"--from {self._source}: {error.strerror}") from None


def _open(source: str) -> int:
    if source == "-":
        if sys.stdin is None:
            raise UsageError("--from -: standard input is closed")
        return sys.stdin.fileno()
    try:
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"--from {source}: {error.strerror}") from None


def _is_table(source: str, how: str) -> str:
    file = "FILE" if source == "-" else source
    return (
        f"--from {source}: this is a table, {how}, and it wants a command in each line; "
        f"did you mean --params {file}?"
    )


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").removeprefix("\ufeff").rstrip("\r")


# ── queueing ──


class _Queued:
    """What has been queued, and who is told of it."""

    def __init__(self, context: typer.Context, client: Client, source: str, json: bool) -> None:
        self.group: str | None = None
        self._context = context
        self._client = client
        self._source = source
        self._json = json
        self._is_terminal = console.look(context).terminal
        self._spans: list[range] = []

    def add(self, batch: _Batch) -> None:
        try:
            ids = self._client.submit_many(batch.jobs, group=self.group)
        except GpuqError as error:
            raise type(error)(f"{_name(self._source)}, {batch}: {error}") from None
        is_first, self.group = self.group is None, self.group or f"g{ids.start}"
        console.say_kept(self._context)
        if self._spans and self._spans[-1].stop == ids.start:
            ids = range(self._spans.pop().start, ids.stop)
        self._spans.append(ids)
        if is_first and not self._is_terminal and not self._json:
            console.say(self.group)
            sys.stdout.flush()
        self._show_progress("\r")

    def so_far(self) -> str:
        self._show_progress("\r\x1b[K", "")
        if self.group is None:
            return "Nothing was queued"
        return (
            f"Queued from the lines before, as {self.group}: {count(self._count, 'job')}; "
            + console.hint(self._context, f"to end them: gpuq kill {self.group}")
        )

    def conclude(self) -> None:
        self._show_progress("\r\x1b[K", "")
        if self._json:
            first = self._spans[0].start
            console.say_json(group=self.group, first=first, count=self._count)
        elif self._is_terminal:
            ids = ",".join(
                f"{span.start}-{span[-1]}" if len(span) > 1 else str(span.start)
                for span in self._spans
            )
            hint = f"  see: gpuq group {self.group}      stop: gpuq kill {self.group}"
            console.say(
                f"{'Jobs' if self._count > 1 else 'Job'} {ids} queued as {self.group}",
                console.hint(self._context, hint),
            )

    @property
    def _count(self) -> int:
        return sum(map(len, self._spans))

    def _show_progress(self, before: str, text: str | None = None) -> None:
        """On a terminal, over the line that is there."""
        if sys.stderr.isatty():
            sys.stderr.write(before + (f"{self._count} queued" if text is None else text))
            sys.stderr.flush()
