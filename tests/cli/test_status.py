"""`gpuq status`: in which order, which columns, since when, and watched."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from gpuq.cli.gpu_text import gpu_row
from gpuq.cli.job_text import ORDERS, PIPE_COLUMNS, chosen_table, column_values, in_order, job_row
from gpuq.cli.jobs import read_since
from gpuq.cli.render import Look
from gpuq.cli.watch import _height
from gpuq.daemon.requests import fields
from gpuq.daemon.store import Store
from gpuq.errors import UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said, ended, gpu, job, page, process, running
from tests.conftest import BIN, Daemon, clean_environment, until
from tests.daemon.test_store import NOW, end, start, submit_one

LOOK = Look(width=80, user="alice", now=2000.0)


def ids(jobs: list[dict[str, Any]]) -> list[int]:
    return [one["id"] for one in jobs]


# ── order ──


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("id", [1, 2, 3, 4]),
        ("-id", [4, 3, 2, 1]),
        ("started", [3, 1, 2, 4]),
        ("-started", [1, 3, 2, 4]),
        ("ended", [3, 1, 2, 4]),
        ("submitted", [2, 1, 3, 4]),
        ("priority", [1, 2, 3, 4]),
        ("-priority", [4, 1, 2, 3]),
        ("name", [4, 1, 2, 3]),
        ("user", [1, 3, 4, 2]),
        ("state", [2, 4, 1, 3]),
    ],
)
def test_jobs_stand_in_the_order_asked_for(order: str, wanted: list[int]) -> None:
    """Equals by id, and those that have no such thing last, from whichever end."""
    jobs = [
        job(4, name="a", priority=5),
        running(1, started_at=1900.0),
        ended(3, started_at=1800.0),
        job(2, user="bob", submitted_at=900.0),
    ]
    assert ids(in_order(jobs, order)) == wanted


def test_what_is_first_in_an_order_is_looked_for_among_all(gpuq: Gpuq, fake: FakeDaemon) -> None:
    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["limit"] is None
        if asked["before"] is None:
            return page(job(1), job(2), before=2)
        return page(job(3, priority=9))

    fake.answers["status"] = answer
    out = gpuq("status", "--sort", "-priority", "--limit", "2").out
    assert [line.split("\t")[0] for line in out.splitlines()] == ["3", "1"]
    lines = gpuq("status", "--sort", "-priority", "--limit", "2", terminal=True).out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["3", "1"]
    assert "more not shown" in lines[-1]


def test_a_limit_is_kept_over_pages(gpuq: Gpuq, fake: FakeDaemon) -> None:
    pages = {None: page(job(9), job(8), before=8), 8: page(job(7), job(6), before=6)}
    fake.answers["status"] = lambda asked: pages[asked["before"]]
    found = json.loads(gpuq("status", "-a", "--limit", "3", "--json").out)["jobs"]
    assert ids(found) == [7, 8, 9]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--sort", "size"], f"--sort: 'size' is no order: {', '.join(ORDERS)}"),
        (["--sort=--id"], f"--sort: '--id' is no order: {', '.join(ORDERS)}"),
        (["-o", "id,mood"], f"--columns: 'mood' is no column: {', '.join(column_values(0))}"),
        (["-o", "id", "--json"], "--columns and --json exclude each other: JSON has every field"),
        (
            ["--since", "soon"],
            "--since: 'soon' is neither a length of time like 2h nor a date like 2026-07-31 or "
            "2026-07-31T14:00",
        ),
        (
            ["-w", "--no-trunc"],
            "--watch and --no-trunc exclude each other: the picture has to fit",
        ),
    ],
)
def test_a_slip_is_said_before_anything_is_asked(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], complaint: str
) -> None:
    assert gpuq("status", *words) == (2, "", f"gpuq: {complaint}\n")
    assert fake.asked == []


# ── columns ──


def test_columns_are_those_asked_for_on_a_pipe(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(running(181, tags=["a", "b"]), job(184))
    assert gpuq("status", "-o", "STATE, id,time,tags").out == (
        "running\t181\t60\ta,b\nqueued\t184\t\t\n"
    )


def test_columns_asked_for_are_on_a_terminal_even_if_they_say_nothing() -> None:
    jobs = [running(181), job(184)]
    assert chosen_table(jobs, ["id", "priority", "time", "outcome", "state"], LOOK) == [
        "ID   PRIORITY  TIME  OUTCOME  STATE",
        "181         0  1:00  -        running",
        "184         0     -  -        queued",
    ]


def test_a_pipes_own_columns_are_all_known() -> None:
    assert set(PIPE_COLUMNS) <= set(column_values(0.0))
    assert job_row(ended(1), list(column_values(0.0)), now=2000.0).count("\t") == 25


def test_what_others_wrote_stays_in_its_column() -> None:
    line = chosen_table([job(1, name="\x1b[2J", reason="a\nb")], ["name", "reason"], LOOK)[1]
    assert line == "\\x1b[2J  a\\nb"


def test_no_trunc_cuts_nothing(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(job(1, reason="long " * 60))
    assert "…" in gpuq("status", terminal=True).out
    assert "long " * 59 in gpuq("status", "--no-trunc", terminal=True).out


# ── since ──


def test_since_asks_for_ended_jobs_too(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page()
    gpuq("status", "--since", "10m", now=2000.0)
    asked = fake.requests("status")[0]
    assert (asked["since"], asked["all"]) == (1400.0, True)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", 2800.0),
        ("1:30:00", 4600.0),
        ("90", 9910.0),
        ("9d", 0.0),
        ("1970-01-01", -32400.0),
        ("1970-01-01T10:00", 3600.0),
        ("1970-01-01 10:00:01", 3601.0),
        ("1970-01-01T10:00Z", 36000.0),
        ("19700102", 54000.0),
    ],
)
def test_since_is_a_length_of_time_or_a_date_of_the_readers_own_clock(
    monkeypatch: pytest.MonkeyPatch, text: str, moment: float
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read_since(text, 10000.0) == moment
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("value", ["2h", True, float("nan"), float("inf"), 10**400, [1]])
def test_the_daemon_takes_no_other_moment_than_seconds(value: object) -> None:
    with pytest.raises(UsageError, match=r"since: .* is no time in seconds since 1970"):
        fields.filters({"since": value})
    assert fields.filters({"since": 5})["since"] == 5.0
    assert fields.filters({})["since"] is None


def test_since_means_submitted_started_or_ended_and_pages() -> None:
    """All are submitted and started at NOW; what ends does so 9 s later."""
    with closing(Store(":memory:")) as store:
        over, runs, waits, again = (submit_one(store) for _ in range(4))
        for number in (over, again, runs):
            start(store, number)
        for number in (over, again):
            end(store, number)

        def since(moment: float, **how: Any) -> list[int]:
            return [row["id"] for row in store.found.jobs(since=moment, **how)]

        assert since(NOW) == [again, waits, runs, over]
        assert since(NOW + 1) == [again, over]
        assert since(NOW + 10) == []
        assert since(NOW + 1, limit=1) == [again]
        assert since(NOW + 1, limit=1, cursor=again) == [over]
        assert since(NOW, ended=False) == [runs, waits]


# ── watch ──


class Window:
    """A terminal with a command in it: what is drawn there, as a person sees it."""

    def __init__(self, words: list[str], columns: int, rows: int, term: str) -> None:
        self._ours, theirs = pty.openpty()
        self.columns, self.rows = columns, rows
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            words,
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=clean_environment(LC_ALL="C.UTF-8", NO_COLOR="1", TERM=term),
        )
        os.close(theirs)
        self._lines = [""]
        self.drawn = ""
        self._row = 0
        self.deepest = 0

    def shows(self, *words: str) -> bool:
        self._read()
        return all(word in self.text for word in words)

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def press_ctrl_c(self) -> tuple[int, bytes]:
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=20)
        return self.process.returncode, err

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._ours)

    def _read(self) -> None:
        while select.select([self._ours], [], [], 0)[0]:
            try:
                drawn = os.read(self._ours, 1 << 16).decode()
            except OSError:
                return  # the command has left
            self.drawn += drawn
            for piece in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", drawn):
                self._show(piece)

    def _show(self, piece: str) -> None:
        if piece == "\n":
            self._row += 1
            self._lines += [""] * (self._row + 1 - len(self._lines))
            self.deepest = max(self.deepest, self._row)
        elif piece.endswith("A") and piece.startswith("\x1b"):
            self._row -= int(piece[2:-1])
            assert self._row >= 0
        elif piece == "\x1b[J":
            self._lines[self._row :] = [""]
        elif not piece.startswith(("\x1b", "\r")):  # our lines end with \x1b[K: nothing is left
            self._lines[self._row] = piece
            assert len(piece) <= self.columns


@contextmanager
def window(
    fake: FakeDaemon,
    *words: str,
    columns: int = 80,
    rows: int = 24,
    command: str = "status",
    term: str = "xterm",
) -> Iterator[Window]:
    there = Window([str(BIN / "gpuq"), "--socket", fake.path, command, *words], columns, rows, term)
    try:
        yield there
    finally:
        there.close()


def test_a_watched_list_is_drawn_over_itself_until_ctrl_c(fake: FakeDaemon) -> None:
    fake.answers["status"] = page(running(181), job(184), gpus=[gpu()])
    with window(fake, "-w") as seen:
        until(lambda: seen.shows("job-184", "1 running, 1 queued"))
        fake.answers["status"] = page(running(185), gpus=[gpu()])
        until(lambda: seen.shows("job-185", "1 running, 0 queued"))
        assert "184" not in seen.text
        assert "1 queued" not in seen.text
        assert seen.text.count("MEM") == 1
        code, err = seen.press_ctrl_c()
        assert (code, err) == (130, b"")
        assert seen.shows("job-185", "1 running, 0 queued")


def test_a_watched_list_fits_the_window_and_counts_what_does_not(fake: FakeDaemon) -> None:
    counts = {"running": 0, "queued": 300, "queued_yours": 300}
    jobs = [job(number, reason="long " * 40) for number in range(1, 40)]
    fake.answers["status"] = page(*jobs, gpus=[gpu(0), gpu(1)], counts=counts)
    with window(fake, "-w", columns=50, rows=14) as seen:
        until(lambda: seen.shows("0 running, 300 queued, 293 more not"))
        assert seen.deepest == 13
        assert "job-7" in seen.text
        assert "job-8" not in seen.text
        assert fake.requests("status")[0]["limit"] == 14
    with window(fake, "-w", columns=50, rows=7) as seen:
        until(lambda: seen.shows("296 more not"))
        assert "MEM" not in seen.text
        assert seen.deepest == 6


@pytest.mark.parametrize("command", ["status", "gpus"])
def test_a_terminal_that_only_prints_lines_is_sent_no_codes(fake: FakeDaemon, command: str) -> None:
    fake.answers["status"] = page(running(181))
    fake.answers["gpus"] = page(gpus=[gpu(0)])
    with window(fake, "-w", columns=400, command=command, term="dumb") as seen:
        until(lambda: seen.shows("running" if command == "status" else "GPU-"))
        assert "\x1b" not in seen.drawn


def test_a_window_that_became_narrower_has_wrapped_its_lines() -> None:
    assert _height(["a" * 80, "", "\x1b[31m" + "b" * 40 + "\x1b[0m", "実" * 21], 40) == 6


def test_watched_json_has_a_line_for_each_change(fake: FakeDaemon) -> None:
    fake.answers["status"] = page(job(1))
    words = [BIN / "gpuq", "--socket", fake.path, "status", "--watch", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout
        assert watching.stderr
        first = json.loads(watching.stdout.readline())
        until(lambda: len(fake.asked) > 2)
        fake.answers["status"] = page(running(1))
        second = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
        assert watching.stdout.read() + watching.stderr.read() == b""
    assert first == {"schema": 1, "jobs": [job(1)]}
    assert second == {"schema": 1, "jobs": [running(1)]}


@contextmanager
def reading(fake: FakeDaemon, *words: str) -> Iterator[Any]:
    """The lines that a watching command writes into a pipe, without the moment before each."""
    command = [BIN / "gpuq", "--socket", fake.path, *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout
        assert watching.stderr

        def next_line() -> list[str]:
            moment, *cells = watching.stdout.readline().rstrip("\n").split("\t")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", moment)
            return cells

        yield next_line
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
        assert watching.stdout.read() + watching.stderr.read() == ""


def test_on_a_pipe_a_watched_list_adds_a_line_for_each_job_that_moved(fake: FakeDaemon) -> None:
    over = ended(181, reason="exit code 3", exit_code=3)

    def answer(request: Said) -> Said:
        return page(over) if request["refs"] == ["181"] else page(job(184, reason="other"))

    fake.answers["status"] = page(running(181), job(184))
    with reading(fake, "status", "-w") as next_line:
        assert [next_line()[:2] for _ in range(2)] == [["181", "running"], ["184", "queued"]]
        fake.answers["status"] = answer
        assert next_line() == job_row(over).split("\t")
        fake.answers["status"] = page(job(184, substate="held"))
        assert next_line()[:3] == ["184", "queued", "held"]


def test_on_a_pipe_watched_columns_can_be_chosen(fake: FakeDaemon) -> None:
    fake.answers["status"] = page(running(181))
    with reading(fake, "status", "-w", "-o", "id,name") as next_line:
        assert next_line() == ["181", "job-181"]


def test_watched_gpus_add_a_line_for_each_that_is_otherwise(fake: FakeDaemon) -> None:
    fake.answers["gpus"] = page(gpus=[gpu(0), gpu(1)])
    with reading(fake, "gpus", "-w") as next_line:
        assert [next_line()[0] for _ in range(2)] == ["0", "1"]
        fake.answers["gpus"] = page(gpus=[gpu(0), gpu(1, temperature_c=77)])
        assert next_line() == gpu_row(gpu(1, temperature_c=77)).split("\t")


def test_a_watched_gpu_that_is_no_more_is_told_once_more(fake: FakeDaemon) -> None:
    fake.answers["gpus"] = page(gpus=[gpu(0), gpu(1)])
    with reading(fake, "gpus", "-w") as next_line:
        there = [next_line() for _ in range(2)]
        fake.answers["gpus"] = page(gpus=[gpu(0)])
        told = next_line()
        assert told[:4] == there[1][:4]
        assert told[4] == "gone"
        assert told[5] == "", "nothing is read from it"
        fake.answers["gpus"] = page(gpus=[gpu(0), gpu(1)])
        assert next_line() == there[1]


def test_a_watched_process_that_has_left_is_told_once_more(fake: FakeDaemon) -> None:
    stays, goes = process(11), process(12)
    fake.answers["gpus"] = page(gpus=[gpu(0, processes=[stays, goes])])
    with reading(fake, "gpus", "-w", "--procs") as next_line:
        there = [next_line() for _ in range(2)]
        assert [row[3] for row in there] == ["11", "12"]
        fake.answers["gpus"] = page(gpus=[gpu(0, processes=[stays])])
        told = next_line()
        assert told[:5] == there[1][:5]
        assert told[5] == "", "it holds nothing"
        assert told[6:] == [*there[1][6:], "gone"]
        fake.answers["gpus"] = page(gpus=[])
        assert [next_line()[3]] == ["11"], "its GPU is gone, and so is it"


def test_watched_gpus_are_drawn_over_themselves(fake: FakeDaemon) -> None:
    fake.answers["gpus"] = page(gpus=[gpu(0)])
    with window(fake, "-w", command="gpus") as seen:
        until(lambda: seen.shows("34C"))
        fake.answers["gpus"] = page(gpus=[gpu(0, temperature_c=77)])
        until(lambda: seen.shows("77C"))
        assert "34C" not in seen.text
        assert seen.press_ctrl_c() == (130, b"")


def test_watched_gpus_as_json_have_a_line_for_each_change(fake: FakeDaemon) -> None:
    fake.answers["gpus"] = page(gpus=[gpu(0)])
    words = [BIN / "gpuq", "--socket", fake.path, "gpus", "--watch", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as watching:
        assert watching.stdout
        assert json.loads(watching.stdout.readline()) == {"schema": 1, "gpus": [gpu(0)]}
        watching.stdout.close()
        fake.answers["gpus"] = page(gpus=[gpu(1)])
        assert watching.wait(20) == 141, "its reader is gone"


def test_a_verb_of_gpus_is_not_watched(gpuq: Gpuq) -> None:
    ran = gpuq("gpus", "--watch", "resume", "0")
    assert (ran.code, ran.err) == (
        2,
        "gpuq: --watch goes with gpuq gpus alone, and not with resume\n",
    )


def test_a_restart_of_the_daemon_is_waited_for(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start()
    words = [BIN / "gpuq", "status", "--watch", "--json"]
    with subprocess.Popen(
        words, env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watching:
        assert watching.stdout
        assert json.loads(watching.stdout.readline())["jobs"] == []
        with daemon.client() as client:
            client.call("stop", restart=True)  # as `gpuq daemon restart` asks for it
        assert daemon.process is not None
        assert daemon.process.wait(20) == 0
        daemon.start()
        with daemon.client() as client:
            number = client.submit(["sleep", "60"], gpus=0)
        assert ids(json.loads(watching.stdout.readline())["jobs"]) == [number]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
