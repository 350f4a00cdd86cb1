"""Who follows a log gets every byte once, through attempts, holes and truncations."""

import copy
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import pytest

from gpuq import rights
from gpuq.daemon.attempt.joblog import JobLog
from gpuq.daemon.linux import syscalls as linux
from gpuq.errors import GpuqError, NothingMatched
from gpuq.follow import CHUNK, Follow, LogFile, open_log
from gpuq.rights import Identity, acting_as
from tests.cli.said import attempt, in_full, job

KIB, MIB = 2**10, 2**20
PATIENCE = 50  # waits in which nothing more happens
DROPPED = (
    rb"\[gpuq: ([\d.]+) (KiB|MiB|GiB) of this log were dropped here to keep it under its limit\]\n"
)


class Life:
    """The life of job 7 as a test tells it: one step each time its follower waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.view = in_full(job(7))
        self.said: list[str] = []
        self.idle = 0
        self.follower: Follow | None = None
        self._steps: Iterator[Callable[[], Any]] = iter(())

    def log(self, number: int = 1) -> Path:
        return self.folder / f"log-{number}"

    def write(self, text: str | bytes, number: int = 1) -> None:
        with self.log(number).open("ab") as log:
            log.write(text if isinstance(text, bytes) else text.encode())

    def begin(self, log: Path | None = None) -> None:
        """The next attempt."""
        number = self.view["attempt"] + 1
        path = str(log or self.log(number))
        self.view["attempts"].append(attempt(attempt=number, log=path, ended_at=None))
        self.view.update(state="running", attempt=number, log=path)

    def retry(self) -> None:
        self.view["state"] = "queued"

    def end(self) -> None:
        self.view["state"] = "ended"

    def follow(self, *steps: Callable[[], Any], **how: Any) -> bytes:
        """All that a follower gets while these steps are taken."""
        self._steps = iter(steps)
        self.follower = Follow(self.call, 7, say=self.said.append, **how)
        return b"".join(self.follower)

    def call(self, do: str, **asked: Any) -> dict[str, Any]:
        if do == "show":
            return {"job": copy.deepcopy(self.view)}
        assert do == "wait"
        step = next(self._steps, None)
        if step is not None:
            step()
        else:
            self.idle += 1
            assert self.idle < PATIENCE, "it follows what has ended"
        moment = ("starting", "running", "ended") if asked.get("started") else ("ended",)
        return {"timed_out": self.view["state"] not in moment}


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


def nothing() -> None:
    pass


LOOK = [nothing] * 5  # in which a follower looks at the job at least once


def open_file(path: Path, *, is_ours: bool = True) -> LogFile:
    return LogFile(open_log(str(path)), is_ours=is_ours)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def content(path: Path, *, start: int = 0, is_ours: bool = True) -> bytes:
    file = open_file(path, is_ours=is_ours)
    file.position = start
    try:
        return b"".join(file.read())
    finally:
        file.close()


def last_lines(path: Path, lines: int, *, is_ours: bool = True) -> bytes:
    file = open_file(path, is_ours=is_ours)
    try:
        return content(path, start=file.start_of_last_lines(lines), is_ours=is_ours)
    finally:
        file.close()


def punch(path: Path, start: int, size: int) -> None:
    """As gpuq does to keep a log under its limit."""
    with path.open("r+b") as file:
        try:
            linux.punch_hole(file.fileno(), start, size)
        except OSError as error:
            pytest.skip(f"NO HOLES CAN BE PUNCHED HERE, so reading them is not tested: {error}")


def note(size: str) -> bytes:
    return b"[gpuq: %s of this log were dropped here to keep it under its limit]\n" % size.encode()


# ── from before its start to its end ──


def test_a_log_is_followed_from_before_its_start_to_its_end(life: Life) -> None:
    got = life.follow(
        nothing,
        life.begin,
        lambda: life.write("one\n"),
        lambda: life.write("tw"),
        lambda: life.write("o\n"),
        lambda: (life.write("the last"), life.end()),
    )
    assert got == b"one\ntwo\nthe last"
    assert life.follower is not None
    assert life.follower.job["state"] == "ended"
    assert life.said == []


def test_a_job_that_never_ran_has_no_log(life: Life) -> None:
    assert life.follow(life.end) == b""


def test_a_log_that_was_never_made_is_no_error(life: Life) -> None:
    assert life.follow(life.begin, life.end) == b""


def test_only_the_last_lines_of_what_is_there_and_all_that_comes(life: Life) -> None:
    life.begin()
    life.write("one\ntwo\nthree\n")
    assert life.follow(lambda: (life.write("four\n"), life.end()), tail=2) == b"two\nthree\nfour\n"


def test_a_follower_begins_where_it_is_told(life: Life) -> None:
    life.begin()
    life.write("one\ntwo\n")
    assert life.follow(life.end, start=lambda log: 4) == b"two\n"


def test_who_asks_for_an_attempt_that_never_was_is_told(life: Life) -> None:
    life.begin()
    with pytest.raises(NothingMatched, match="job 7 has no attempt 2"):
        life.follow(attempt=2)


# ── attempts ──


def test_the_next_attempt_is_followed_when_the_old_log_was_read_to_its_end(life: Life) -> None:
    got = life.follow(
        life.begin,
        lambda: life.write("first\n"),
        lambda: (life.write("its end\n"), life.retry()),
        *LOOK,
        life.begin,
        lambda: life.write("second\n", 2),
        lambda: (life.write("done\n", 2), life.end()),
    )
    assert got == b"first\nits end\nsecond\ndone\n"
    assert life.said == ["attempt 2 of job 7 begins"]


def test_nothing_is_missed_where_attempts_pass_between_two_looks(life: Life) -> None:
    def three_attempts() -> None:
        life.write("one\n")
        life.begin()
        life.write("two\n", 2)
        life.begin()
        life.begin()
        life.write("four\n", 4)

    got = life.follow(life.begin, three_attempts, *LOOK, life.end)
    assert got == b"one\ntwo\nfour\n"
    assert life.said == [f"attempt {number} of job 7 begins" for number in (2, 3, 4)]


def test_a_job_that_waits_for_its_next_attempt_shows_the_last_one_meanwhile(life: Life) -> None:
    life.begin()
    life.write("first\n")
    life.retry()
    got = life.follow(life.begin, lambda: (life.write("second\n", 2), life.end()))
    assert got == b"first\nsecond\n"


def test_it_begins_with_the_last_attempt_or_the_first(life: Life) -> None:
    life.begin()
    life.write("first\n")
    life.begin()
    life.write("second\n", 2)
    life.end()
    assert life.follow() == b"second\n"
    assert life.follow(from_first=True) == b"first\nsecond\n"


def test_one_attempt_alone_ends_with_it(life: Life) -> None:
    got = life.follow(
        life.begin, lambda: (life.write("first\n"), life.begin(), life.write("x", 2)), attempt=1
    )
    assert got == b"first\n"
    assert life.view["state"] == "running"


def test_an_attempt_that_was_taken_back_is_waited_for_again(life: Life) -> None:
    def take_back() -> None:
        life.view["attempts"].pop()
        life.view.update(state="queued", attempt=1, log=str(life.log(1)))

    life.begin()
    life.write("first\n")
    life.retry()
    got = life.follow(
        life.begin,
        take_back,
        *LOOK,
        life.begin,
        lambda: (life.write("second\n", 2), life.end()),
    )
    assert got == b"first\nsecond\n"
    assert life.said == ["attempt 2 of job 7 begins"]


def test_a_file_that_all_attempts_write_to_is_read_once(life: Life) -> None:
    file = life.log()
    life.view["output"] = str(file)
    got = life.follow(
        lambda: life.begin(file),
        lambda: (life.write("first\n"), life.retry()),
        *LOOK,
        lambda: life.begin(file),
        lambda: (life.write("second\n"), life.end()),
    )
    assert got == b"first\nsecond\n"
    assert life.said == ["attempt 2 of job 7 begins"]


def test_a_file_that_the_next_attempt_made_anew_is_read_from_its_start(life: Life) -> None:
    file = life.log()

    def make_anew() -> None:
        file.rename(life.folder / "old")
        life.write("second\n")
        life.begin(file)

    got = life.follow(
        lambda: life.begin(file),
        lambda: life.write("a long first\n"),
        lambda: (life.retry(), make_anew()),
        *LOOK,
        life.end,
    )
    assert got == b"a long first\nsecond\n"


def test_only_the_first_log_is_cut_to_its_last_lines(life: Life) -> None:
    life.begin()
    life.write("one\ntwo\n")
    got = life.follow(
        lambda: (life.begin(), life.write("three\nfour\n", 2)), *LOOK, life.end, tail=1
    )
    assert got == b"two\nthree\nfour\n"


# ── truncated, deleted ──


def test_a_log_that_is_truncated_begins_again_and_it_is_said(life: Life) -> None:
    got = life.follow(
        life.begin,
        lambda: life.write("old and long\n"),
        lambda: (os.truncate(life.log(), 0), life.write("new\n")),
        nothing,
        lambda: (life.write("more\n"), life.end()),
    )
    assert got == b"old and long\nnew\nmore\n"
    assert life.said == ["the log was truncated: from its new beginning on"]


def test_a_log_that_is_deleted_is_read_to_its_end(life: Life) -> None:
    life.begin()
    with life.log().open("ab", buffering=0) as job_end:
        job_end.write(b"one\n")
        got = life.follow(life.log().unlink, lambda: job_end.write(b"two\n"), life.end)
    assert got == b"one\ntwo\n"


def test_what_cannot_be_read_again_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(GpuqError, match="fifo is a pipe: what went through it"):
        open_log(str(tmp_path / "fifo"))
    with pytest.raises(GpuqError, match="ptmx is a terminal"):
        open_log("/dev/ptmx")


def test_a_log_is_a_file_and_nothing_that_may_have_no_end(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/zero")
    with pytest.raises(GpuqError, match="log is a device, and no log: it may have no end"):
        open_log(str(tmp_path / "log"))
    with pytest.raises(GpuqError, match="is a folder, and no log"):
        open_log(str(tmp_path))
    assert content(Path(os.devnull)) == b""


# ── the rights it is read with ──

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as others")
NOBODY = Identity(65534, 65534, ())


@AS_ROOT
@pytest.mark.parametrize("of_thread", [True, False], ids=["thread", "process"])
def test_readers_in_several_threads_have_no_rights_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_thread: bool
) -> None:
    """The process as a whole is changed where the kernel's numbers are not known: one after another."""
    monkeypatch.setattr(rights, "_can_call", rights._can_call and of_thread)
    secret = tmp_path / "secret"
    secret.touch(0o600)
    opened: list[str] = []

    def read(user: Identity) -> None:
        for _ in range(200):
            with acting_as(user):
                try:
                    os.close(os.open(secret, os.O_RDONLY))
                    opened.append("with the rights of root")
                except PermissionError:
                    pass

    users = [NOBODY, Identity(1, 1, (1, 2))]
    readers = [threading.Thread(target=read, args=(user,)) for user in users]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert opened == []
    assert 0 in (os.geteuid(), os.getegid())


@AS_ROOT
@pytest.mark.skipif(platform.machine() not in rights._NUMBERS, reason="of the whole process there")
def test_who_acts_as_a_user_leaves_the_other_threads_root_and_is_root_again() -> None:
    is_user, is_looked_at = threading.Event(), threading.Event()
    seen: list[Any] = []

    def act() -> None:
        before = os.getgroups()
        with acting_as(Identity(65534, 65533, (1, 2))):
            seen.extend([os.getresuid(), os.getresgid(), os.getgroups(), capabilities()])
            is_user.set()
            is_looked_at.wait()
        seen.extend([os.getresuid(), os.getresgid(), os.getgroups() == before])

    mine, thread = capabilities(), threading.Thread(target=act)
    thread.start()
    is_user.wait()
    assert (os.geteuid(), os.getegid(), capabilities()) == (0, 0, mine)
    is_looked_at.set()
    thread.join()
    assert seen[:4] == [(0, 65534, 0), (0, 65533, 0), [1, 2], 0]
    assert seen[4:] == [(0, 0, 0), (0, 0, 0), True]


def capabilities() -> int:
    """Those in force in this thread, as bits."""
    status = Path("/proc/thread-self/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)


# ── holes ──


def lines_of(size: int) -> bytes:
    return b"".join(b"%09d\n" % number for number in range(size // 10 + 1))[:size]


def test_a_hole_is_one_line_that_says_how_much_was_dropped(log: Path) -> None:
    whole = lines_of(10 * MIB)
    log.write_bytes(whole)
    punch(log, MIB, 9 * MIB - 4 * KIB)
    assert content(log) == whole[:MIB] + b"\n" + note("9.0 MiB") + whole[-4 * KIB :]
    assert content(log, start=10 * MIB - 1) == whole[-1:]
    assert content(log, start=MIB) == note("9.0 MiB") + whole[-4 * KIB :]
    assert content(log, start=5 * MIB).startswith(note("5.0 MiB"))


def test_a_hole_at_a_lines_end_adds_no_empty_line(log: Path) -> None:
    log.write_bytes(b"x" * 4095 + b"\n" + bytes(4 * KIB) + b"rest\n")
    punch(log, 4 * KIB, 4 * KIB)
    assert content(log) == b"x" * 4095 + b"\n" + note("4.0 KiB") + b"rest\n"


def test_holes_at_both_ends_and_several_of_them(log: Path) -> None:
    log.write_bytes(bytes(4 * KIB) + b"a" * 4 * KIB + bytes(8 * KIB) + b"b" * 4 * KIB)
    punch(log, 0, 4 * KIB)
    punch(log, 8 * KIB, 8 * KIB)
    os.truncate(log, 2**32)
    assert content(log) == (
        note("4.0 KiB")
        + b"a" * 4 * KIB
        + b"\n"
        + note("8.0 KiB")
        + b"b" * 4 * KIB
        + b"\n"
        + note("4.0 GiB")
    )


def test_a_newline_that_only_undoes_a_step_up_begins_no_line(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(b"one\ntwo\n\rb1\x1b[A\n\rb2\x1b[A\n\rb3\x1b[A")
    for chunk in (1, 2, 3, 5, 1000):
        monkeypatch.setattr("gpuq.follow.CHUNK", chunk)
        assert last_lines(log, 2).startswith(b"two\n\rb1")


def test_a_terabyte_of_hole_is_passed_at_once(log: Path) -> None:
    log.write_bytes(b"head\n")
    os.truncate(log, 2**40)
    with log.open("ab") as file:
        file.write(b"one\ntwo\n")
    began = time.monotonic()
    assert last_lines(log, 2) == b"one\ntwo\n"
    assert content(log).startswith(b"head\n")
    assert time.monotonic() - began < 5


def test_zeros_in_a_file_of_the_users_own_are_their_zeros(log: Path) -> None:
    log.write_bytes(b"a\n")
    os.truncate(log, MIB)
    assert content(log, is_ours=False) == b"a\n" + bytes(MIB - 2)


def test_zeros_that_a_job_wrote_are_no_hole(log: Path) -> None:
    log.write_bytes(bytes(MIB))
    assert content(log) == bytes(MIB)


def test_a_follower_whose_place_is_punched_goes_on_behind_the_hole(life: Life) -> None:
    whole = lines_of(MIB)

    def write_on_and_punch() -> None:
        life.write(whole[100 * KIB :])
        punch(life.log(), 64 * KIB, MIB - 128 * KIB)

    got = life.follow(
        life.begin,
        lambda: life.write(whole[: 100 * KIB]),
        write_on_and_punch,
        lambda: (life.write("end\n"), life.end()),
    )
    seen = whole[: 100 * KIB]
    assert got == seen + note_after(seen, "860.0 KiB") + whole[-64 * KIB :] + b"end\n"


def note_after(text: bytes, size: str) -> bytes:
    return (b"" if text.endswith(b"\n") else b"\n") + note(size)


def test_a_hole_punched_while_it_is_read_gives_no_zeros(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lines_of(MIB)
    log.write_bytes(whole)
    pread = os.pread

    def punch_before_reading(fd: int, size: int, offset: int) -> bytes:
        if offset == 0:
            punch(log, 64 * KIB, 512 * KIB)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", punch_before_reading)
    expected = whole[: 64 * KIB] + note_after(whole[: 64 * KIB], "512.0 KiB")
    assert content(log) == expected + whole[576 * KIB :]


# ── the last lines ──


@pytest.mark.parametrize(
    ("text", "lines", "last"),
    [
        (b"", 3, b""),
        (b"one", 1, b"one"),
        (b"one\ntwo\n", 0, b""),
        (b"one\ntwo\n", 1, b"two\n"),
        (b"one\ntwo", 1, b"two"),
        (b"one\ntwo\n", 2, b"one\ntwo\n"),
        (b"one\ntwo\n", 9, b"one\ntwo\n"),
        (b"one\n\n\n", 2, b"\n\n"),
        (b"\n", 1, b"\n"),
        (b"10%\r20%\rdone\nend\n", 2, b"10%\r20%\rdone\nend\n"),
        (b"x" * CHUNK + b"\n" + b"y" * (CHUNK - 1), 1, b"y" * (CHUNK - 1)),
        (b"x" * CHUNK + b"\n" + b"y" * CHUNK, 1, b"y" * CHUNK),
        (b"x" * CHUNK + b"\n" + b"y" * CHUNK, 2, b"x" * CHUNK + b"\n" + b"y" * CHUNK),
    ],
)
@pytest.mark.parametrize("is_ours", [True, False])
def test_the_last_lines(log: Path, text: bytes, lines: int, last: bytes, is_ours: bool) -> None:
    log.write_bytes(text)
    assert last_lines(log, lines, is_ours=is_ours) == last


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (1, b"last\n"),
        (2, b"cut\nlast\n"),
        (3, note("2.0 MiB") + b"cut\nlast\n"),
        (4, b"x" * (4 * KIB - 6) + b"\n" + note("2.0 MiB") + b"cut\nlast\n"),
        (5, b"first\n" + b"x" * (4 * KIB - 6) + b"\n" + note("2.0 MiB") + b"cut\nlast\n"),
        (9, b"first\n" + b"x" * (4 * KIB - 6) + b"\n" + note("2.0 MiB") + b"cut\nlast\n"),
    ],
)
def test_beside_a_hole_the_hole_is_one_line(log: Path, lines: int, last: bytes) -> None:
    head = b"first\n" + b"x" * (4 * KIB - 6)
    log.write_bytes(head + b"y\n" * MIB + b"cut\nlast\n")
    punch(log, 4 * KIB, 2 * MIB)
    assert last_lines(log, lines) == last


def test_the_line_of_a_byte(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nx")
    file = open_file(log)
    starts = [file.start_of_line(offset) for offset in range(9)]
    file.close()
    assert starts == [0, 0, 0, 0, 4, 4, 4, 4, 8]


# ── with a writer that does not wait ──

WRITER = """
import os, sys
end = int(sys.argv[1])
for number in range(0, end, 400):
    os.write(1, b"".join(b"%09d\\n" % line for line in range(number, min(number + 400, end))))
"""


def race(life: Life, lines: int, between: Callable[[], Any] = nothing) -> bytes:
    """What a follower gets of a writer that never waits; `between` comes between its looks."""
    life.begin()
    with life.log().open("ab") as job_end:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(lines)], stdout=job_end)

    def end_with_the_writer() -> None:
        between()
        if writer.poll() is not None:
            life.end()

    got = life.follow(*[end_with_the_writer] * 100_000)
    assert writer.wait() == 0
    return got


def test_of_a_log_that_grows_all_the_time_nothing_is_missed_or_doubled(life: Life) -> None:
    assert race(life, 2_000_000) == lines_of(20_000_000)


@pytest.fixture
def capped(life: Life) -> Iterator[Path]:
    """The log of a job, kept under 256 KiB by somebody who looks all the time."""
    life.log().write_bytes(bytes(8 * KIB))
    punch(life.log(), 0, 4 * KIB)  # or skip
    os.truncate(life.log(), 0)
    is_over = threading.Event()
    with life.log().open("ab") as job_end:
        log = JobLog(job_end.fileno(), None, cap_bytes=256 * KIB, keep_free_bytes=0)

    def look() -> None:
        for now in count():
            log.tick(float(now))
            if is_over.is_set():
                return

    thread = threading.Thread(target=look)
    thread.start()
    yield life.log()
    is_over.set()
    thread.join()
    log.close()


def test_of_a_log_that_is_capped_all_the_time_what_is_left_out_is_said(
    life: Life, capped: Path
) -> None:
    got = race(life, 2_000_000, lambda: time.sleep(0.01))  # a slow reader
    assert b"\0" not in got
    assert got.startswith(lines_of(64 * KIB))
    assert got.endswith(lines_of(20_000_000)[-64 * KIB :])
    *parts, end = re.split(rb"\n?" + DROPPED, got)[::3]
    assert parts, "something was dropped"
    numbers = [[int(line) for line in part.split(b"\n")[1:-1]] for part in [*parts, end]]
    for before, behind in pairwise(chain(*numbers)):
        assert before < behind, "nothing comes twice"
    for part in filter(None, numbers):
        assert part == list(range(part[0], part[-1] + 1)), "nothing is missed but what is said"
