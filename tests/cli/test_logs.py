"""`logs -t`, `--since` and `-n`: lines with their times, and bars as one line each."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.log_times import Lines, last_state
from gpuq.daemon.attempt.joblog import JobLog
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, attempt, ended, in_full, job, running

BEGAN = 100_000.0  # 1970-01-02 03:46:40
BARS = b"epoch 1\n\r 0%\r 50%\r100%\nloss 0.5\r\n\r 0%\r 30%\r"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Kept:
    """The folder of an attempt with its log and index, and how the daemon tells of it."""

    def __init__(self, state: Path, number: int = 1) -> None:
        self.number = number
        self.folder = state / "jobs" / "179" / str(number)
        self.folder.mkdir(parents=True)
        self.log, self.index = self.folder / "log", self.folder / "log.index"

    def write(self, *pieces: tuple[float, bytes]) -> None:
        """Pieces that were there so many seconds after the start."""
        with self.log.open("ab") as log, self.index.open("a") as index:
            for after_s, piece in pieces:
                log.write(piece)
                index.write(f"{BEGAN + after_s:.3f} {log.tell()}\n")
        self.touch(pieces[-1][0])

    def touch(self, after_s: float) -> None:
        os.utime(self.log, (BEGAN + after_s, BEGAN + after_s))

    def told(self, **changes: Any) -> dict[str, Any]:
        places = {"log": str(self.log), "output_dir": str(self.folder / "output")}
        return attempt(**(places | {"attempt": self.number, "started_at": BEGAN} | changes))


@pytest.fixture
def kept(fake: FakeDaemon, tmp_path: Path) -> Kept:
    one = Kept(tmp_path)
    fake.answers["show"] = {"job": over(one)}
    return one


def over(*attempts: Kept, **changes: Any) -> dict[str, Any]:
    return _with(ended(179), attempts, changes)


def still(*attempts: Kept, **changes: Any) -> dict[str, Any]:
    return _with(running(179), attempts, changes)


def _with(view: dict[str, Any], kept: tuple[Kept, ...], changes: dict[str, Any]) -> dict[str, Any]:
    told = [one.told() for one in kept]
    last = {name: told[-1][name] for name in ("attempt", "log", "output_dir", "started_at")}
    return in_full(view | last | changes, attempts=told)


def at(after_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(BEGAN + after_s))


# ── times ──


def test_each_line_bears_the_time_by_which_it_was_complete(gpuq: Gpuq, kept: Kept) -> None:
    kept.write((0, b""), (1.9, b"one\ntwo\n"), (60, b"thr"), (3601, b"ee\nfour\n"))
    assert gpuq("logs", "-t", "179") == (
        0,
        "1970-01-02 03:46:41 one\n"
        "1970-01-02 03:46:41 two\n"
        "1970-01-02 04:46:41 three\n"
        "1970-01-02 04:46:41 four\n",
        "",
    )


def test_times_are_the_readers_own(gpuq: Gpuq, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write((1, b"one\n"), (2, b"two\n"))
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    assert gpuq("logs", "-t", "-n", "1", "179").out == "1970-01-01 22:46:42 two\n"


def test_before_the_index_it_is_the_start_and_behind_it_the_last_write(
    gpuq: Gpuq, kept: Kept
) -> None:
    kept.write((1, b"of an earlier attempt\n"), (5, b"one\n"))
    with kept.log.open("ab") as log:
        log.write(b"two\nthree")
    kept.touch(9)
    assert gpuq("logs", "-t", "179").out == (
        f"{at(0)} of an earlier attempt\n{at(5)} one\n{at(9)} two\n{at(9)} three"
    )


def test_what_keeps_the_index_and_what_reads_it_agree(gpuq: Gpuq, kept: Kept) -> None:
    with kept.log.open("ab", buffering=0) as log, kept.index.open("ab") as index:
        job_log = JobLog(log.fileno(), index.fileno(), cap_bytes=None, keep_free_bytes=0)
        for after_s in range(5):
            job_log.tick(BEGAN + after_s)
            log.write(b"line %d\n" % after_s)
        job_log.finish(BEGAN + 4.5)
        job_log.close()
    kept.touch(3)
    assert gpuq("logs", "-t", "179").out == "".join(
        f"{at(min(number + 1, 4.5))} line {number}\n" for number in range(5)
    )
    since = f"{at(3).replace(' ', 'T')}+00:00"
    assert gpuq("logs", "--since", since, "179").out == "line 2\nline 3\nline 4\n"


@pytest.mark.parametrize(
    "broken", [b"nonsense\n", b"nan 5\n", b"inf 0\n", b"1e400 4\n", b"-1.000 4\n", b"\xff\n\n"]
)
def test_what_is_no_entry_is_passed_over(gpuq: Gpuq, kept: Kept, broken: bytes) -> None:
    kept.write((1, b""), (2, b"one\n"))
    with kept.index.open("ab") as index:
        index.write(broken)
    kept.write((7, b"two\n"))
    with kept.index.open("ab") as index:
        index.write(b"100009.000 4")  # of which the end is still to come
    assert gpuq("logs", "-t", "179").out == f"{at(2)} one\n{at(7)} two\n"


def test_after_a_truncation_the_times_are_those_of_what_is_there(gpuq: Gpuq, kept: Kept) -> None:
    kept.write((1, b""), (2, b"a first try that was long\n"))
    kept.log.write_bytes(b"")
    kept.write((8, b"one\n"), (9, b"two\n"))
    assert gpuq("logs", "-t", "179").out == f"{at(8)} one\n{at(9)} two\n"
    assert gpuq("logs", "--since", "1970-01-02T03:46:49", "179").out == "two\n"


def test_without_an_index_there_are_no_times_and_it_is_said(gpuq: Gpuq, kept: Kept) -> None:
    kept.log.write_bytes(b"one\n")
    note = "gpuq: job 179 has no index of its log: no times\n"
    assert gpuq("logs", "-t", "179") == (0, "one\n", note)
    assert gpuq("logs", "-ft", "179") == (0, "one\n", note)
    assert gpuq("logs", "--since", "2h", "179") == (
        1,
        "",
        "gpuq: job 179 has no index of its log, which --since goes by. All of it: gpuq logs 179\n",
    )


def test_a_file_of_stderr_has_no_times(gpuq: Gpuq, fake: FakeDaemon) -> None:
    for words in (["-t"], ["--since", "2h"]):
        ran = gpuq("logs", "--stderr", *words, "179")
        assert (ran.code, fake.asked) == (2, [])
        assert ran.err.startswith("gpuq: nobody notes when the file of --stderr grows")


# ── since ──


@pytest.mark.parametrize("since", range(8))
def test_since_begins_with_the_first_line_whose_time_is_not_before(
    gpuq: Gpuq, kept: Kept, since: int
) -> None:
    kept.write((0, b""), (1, b"one\n"), (2, b"two\nthr"), (4, b"ee\n"), (6, b"four\n\nfive\n"))
    lines = gpuq("logs", "-t", "179").out.splitlines(keepends=True)
    wanted = [line[20:] for line in lines if line[:19] >= at(since)]
    when = at(since).replace(" ", "T")
    assert gpuq("logs", "--since", when, "179").out == "".join(wanted)
    assert gpuq("logs", "-f", "--since", when, "179").out == "".join(wanted)


def test_since_counts_back_from_now_and_goes_with_the_other_options(
    gpuq: Gpuq, kept: Kept, fake: FakeDaemon, tmp_path: Path
) -> None:
    kept.write((0, b""), (10, b"one\n"), (20, b"two\n"), (30, b"three\n"))
    now = BEGAN + 35
    assert gpuq("logs", "--since", "15s", "179", now=now).out == "two\nthree\n"
    assert gpuq("logs", "--since", "15s", "-n", "1", "179", now=now).out == "three\n"
    assert gpuq("logs", "--since", "6s", "-n", "9", "-t", "179", now=now).out == f"{at(30)} three\n"
    second = Kept(tmp_path, 2)
    fake.answers["show"] = {"job": over(kept, second)}
    second.write((90, b"other\n"))
    ran = gpuq("logs", "--attempt", "1", "--since", "6s", "-t", "179", now=now)
    assert ran.out == f"{at(30)} three\n"


def test_nothing_new_is_nothing(gpuq: Gpuq, kept: Kept) -> None:
    kept.write((0, b""), (10, b"one\n"))
    assert gpuq("logs", "--since", "10s", "179", now=BEGAN + 100) == (0, "", "")


def test_a_moment_that_is_none_is_a_slip(gpuq: Gpuq, fake: FakeDaemon) -> None:
    ran = gpuq("logs", "--since", "soon", "179")
    assert (ran.code, fake.asked) == (2, [])
    assert ran.err.startswith("gpuq: --since: 'soon' is neither")


def test_of_a_job_that_has_not_started_all_is_new(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    one = Kept(tmp_path)
    one.write((5, b"one\n"))
    views = [in_full(job(179)), over(one)]
    fake.answers["show"] = lambda _: {"job": views.pop(0)}
    fake.answers["wait"] = {"timed_out": False, "ended": "179"}
    assert gpuq("logs", "-f", "--since", "1s", "179", now=BEGAN + 500).out == "one\n"


# ── bars ──


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ([], BARS),
        (["-f"], BARS),
        (["--since", "1970-01-01"], BARS),
        (["-n", "9"], b"epoch 1\n100%\nloss 0.5\r\n 30%\r"),
        (["-n", "3"], b"100%\nloss 0.5\r\n 30%\r"),
        (["-n", "2"], b"loss 0.5\r\n 30%\r"),
        (["-f", "-n", "2"], b"loss 0.5\r\n 30%\r"),
    ],
)
def test_bytes_stay_as_they_are_but_a_bar_is_one_line_where_lines_are_counted(
    gpuq: Gpuq, kept: Kept, words: list[str], out: bytes
) -> None:
    kept.write((0, b""), (1, BARS))
    assert gpuq("logs", *words, "179").out == out.decode()


def test_with_times_a_bar_is_one_line_in_its_last_state(gpuq: Gpuq, kept: Kept) -> None:
    kept.write((0, b""), (1, BARS[:14]), (2, BARS[14:]))
    assert gpuq("logs", "-t", "179").out == (
        f"{at(1)} epoch 1\n{at(2)} 100%\n{at(2)} loss 0.5\r\n{at(2)}  30%\r"
    )


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (b"plain\n", b"plain\n"),
        (b"a\rb\rc\n", b"c\n"),
        (b"a\rb\r\n", b"b\r\n"),
        (b"a\r\r\n", b"a\r\r\n"),
        (b"\r", b"\r"),
        (b"a\r ", b" "),
        (b"", b""),
    ],
)
def test_the_last_state_of_a_bar(line: bytes, state: bytes) -> None:
    assert last_state(line) == state


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_how_the_chunks_fall(size: int) -> None:
    text = b"one\n\r 0%\r50%\r99%\r\r\ntwo\n\nx\ry\rlast"
    lines = Lines(lambda end: f"{end}:")
    shown = b"".join(
        lines.feed(text[start : start + size], min(start + size, len(text)))
        for start in range(0, len(text), size)
    )
    assert shown + lines.rest(len(text)) == b"4:one\n19:99%\r\r\n23:two\n24:\n32:last"


NESTED = b"first\n\repoch 1\n\rbatch 1\x1b[A\n\rbatch 2\x1b[A\n\rbatch 3\x1b[A"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_bar_inside_another_one_is_one_line_in_its_last_state(size: int) -> None:
    lines = Lines()
    shown = b"".join(
        lines.feed(NESTED[start : start + size], start + size)
        for start in range(0, len(NESTED), size)
    )
    assert shown + lines.rest(len(NESTED)) == b"first\nepoch 1\nbatch 3"


def test_the_last_lines_count_a_bar_inside_another_one_once(gpuq: Gpuq, kept: Kept) -> None:
    kept.write((0, b""), (1, NESTED))
    assert gpuq("logs", "-n", "2", "179").out == "epoch 1\nbatch 3"


def test_on_a_terminal_the_prompt_begins_a_line(
    gpuq: Gpuq, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write((0, b""), (1, b"one\nlast"))
    assert gpuq("logs", "-n", "1", "179").out == "last"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert gpuq("logs", "-n", "1", "179").out == "last\n"
    assert gpuq("logs", "179").out == "one\nlast\n"


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    lines = Lines(lambda end: "> ")
    chunks = [b"x" * 2**19] * 6 + [b"end\nnext\n"]
    shown = [lines.feed(chunk, 0) for chunk in chunks]
    assert any(shown[:-1])
    assert b"".join(shown) == b"> " + b"x" * (6 * 2**19) + b"end\n> next\n"


def test_on_a_terminal_a_bar_moves_under_its_time() -> None:
    lines = Lines(lambda end: f"{end}: ")
    assert lines.feed(b"one\n 10%\r", 9) == b"4: one\n"
    assert lines.draw(9, 80) == b"\r\x1b[K9:  10%"
    assert lines.draw(9, 80) == b"", "drawn already"
    assert lines.draw(9, 0) == b"", "no terminal"
    lines.feed(b" 20%, and much more", 28)
    assert lines.draw(28, 12) == "\r\x1b[K28:  20%, …".encode()
    assert lines.feed(b"\rdone\n", 34) == b"\r\x1b[K34: done\n"
    lines.feed(b"no bar", 40)
    assert lines.draw(40, 80) == b"", "it will be complete in one go"


# ── followed ──


class Play:
    """A daemon whose job takes a step with each wait of its follower."""

    def __init__(self, fake: FakeDaemon, *steps: Callable[[], dict[str, Any] | None]) -> None:
        self._steps = list(steps)
        self._view = self._steps.pop(0)() or {}
        fake.answers["show"] = lambda _: {"job": self._view}
        fake.answers["wait"] = lambda _: self._take()

    def _take(self) -> dict[str, Any]:
        self._view = (self._steps.pop(0)() if self._steps else None) or self._view
        return {"timed_out": False, "ended": ""}


def test_times_and_attempts_while_they_are_followed(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    one, two = Kept(tmp_path, 1), Kept(tmp_path, 2)
    one.write((0, b""), (1, b"one\n"))

    def behind_the_index() -> None:
        with one.log.open("ab") as log:
            log.write(b"two\nthe la")
        one.touch(3)

    def again() -> dict[str, Any]:
        with one.log.open("ab") as log:
            log.write(b"st")
        one.touch(4)
        two.write((10, b""), (11, b"first of two\n"))
        return still(one, two)

    Play(fake, lambda: still(one), behind_the_index, again, lambda: over(one, two))
    assert gpuq("logs", "-ft", "179") == (
        0,
        f"{at(1)} one\n{at(3)} two\n{at(4)} the last\n{at(11)} first of two\n",
        "gpuq: attempt 2 of job 179 begins\n",
    )


def test_a_log_that_is_truncated_while_it_is_followed_has_times_all_the_same(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    one = Kept(tmp_path)
    one.write((0, b""), (1, b"a first try that was long\n"))

    def truncate() -> None:
        one.log.write_bytes(b"new\n")
        one.touch(5)

    def note() -> None:
        one.write((6, b"more\n"))

    Play(fake, lambda: still(one), truncate, note, lambda: over(one))
    assert gpuq("logs", "-ft", "179") == (
        0,
        f"{at(1)} a first try that was long\n{at(5)} new\n{at(6)} more\n",
        "gpuq: the log was truncated: from its new beginning on\n",
    )


def test_a_file_that_is_appended_to_is_followed_from_what_is_new(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    """It is there before the attempt has begun, and its index is not."""
    one = Kept(tmp_path)
    one.log.write_bytes(b"of last week\n")

    def waiting() -> dict[str, Any]:
        view = still(one, state="starting", started_at=None)
        view["attempts"][0]["started_at"] = None
        return view

    Play(
        fake,
        waiting,
        lambda: one.write((0, b""), (1, b"new\n")),
        lambda: still(one),
        lambda: over(one),
    )
    assert gpuq("logs", "-ft", "--since", "1s", "179", now=BEGAN + 9).out == f"{at(1)} new\n"


def test_bars_move_again_once_the_last_lines_were_shown(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    one = Kept(tmp_path)
    one.write((0, b"old\n\r10%\r20%"))

    def move() -> None:
        with one.log.open("ab") as log:
            log.write(b"\r30%\r40%\n")

    Play(fake, lambda: still(one), move, lambda: over(one))
    assert gpuq("logs", "-f", "-n", "1", "179").out == "20%\r30%\r40%\n"
