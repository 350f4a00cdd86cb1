"""A log under its cap and the index of its times, whatever the job does to it meanwhile."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpuq.daemon.attempt import joblog
from gpuq.daemon.attempt.joblog import JobLog
from gpuq.daemon.linux import syscalls as linux

MIB = 2**20
BLOCK = 4096
LINE = 10  # bytes of each that a writer writes
WRITER = """
import os, sys
number, end, piece = map(int, sys.argv[1:])
while number < end:
    upto = min(number + piece, end)
    os.write(1, b"".join(b"%09d\\n" % line for line in range(number, upto)))
    number = upto
"""


def written(start: int, end: int) -> bytes:
    """What a writer has written between two offsets."""
    lines = b"".join(b"%09d\n" % line for line in range(start // LINE, -(-end // LINE)))
    return lines[start % LINE :][: end - start]


class Watched:
    """A log file with a JobLog, on a clock of its own; the job's end of it is `fd`."""

    def __init__(self, folder: Path, before: bytes = b"", **limits: int | None) -> None:
        self.path, self.index_path = folder / "log", folder / "log.index"
        self.path.write_bytes(before)
        self.fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        index = os.open(self.index_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        plain: dict[str, int | None] = {"cap_bytes": MIB, "keep_free_bytes": 0}
        reader = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.log = JobLog(self.fd, index, reader, **(plain | limits))  # type: ignore[arg-type]
        os.close(index)
        os.close(reader)
        self.now = 1000.0

    def close(self) -> None:
        self.log.close()
        os.close(self.fd)

    def look(self, seconds: float = 1.0) -> float:
        self.now += seconds
        return self.log.tick(self.now)

    def write(self, data: bytes) -> None:
        assert os.write(self.fd, data) == len(data)

    def write_lines(self, size: int, looks: int = 20) -> None:
        """So many bytes in pieces, with a look after each."""
        for number in range(looks):
            self.write(written(size * number // looks, size * (number + 1) // looks))
            self.look()

    def write_slowly(self, size: int) -> None:
        for _ in range(size):
            self.write(b"x")
            self.look()

    def allocated(self) -> int:
        return os.fstat(self.fd).st_blocks * 512

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def entries(self) -> list[tuple[float, int]]:
        lines = self.index_path.read_text().splitlines(keepends=True)
        assert all(line.endswith("\n") for line in lines)
        return [(float(time), int(offset)) for time, offset in map(str.split, lines)]


Watch = Callable[..., Watched]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    open_ones: list[Watched] = []

    def make(folder: Path = tmp_path, before: bytes = b"", **limits: int | None) -> Watched:
        open_ones.append(Watched(folder, before, **limits))
        return open_ones[-1]

    yield make
    for one in open_ones:
        one.close()


@pytest.fixture
def punching(tmp_path: Path) -> None:
    """These promises need a file system that can give the middle of a file back."""
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(2 * BLOCK))
    with probe.open("r+b") as file:
        try:
            linux.punch_hole(file.fileno(), 0, BLOCK)
        except OSError as error:
            pytest.skip(f"NO HOLES CAN BE PUNCHED HERE, so the cap of logs is not tested: {error}")
    probe.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "gpuq-test", folder]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            pytest.skip(f"A FULL DISK IS NOT TESTED, for that takes root: {ran.stderr.strip()}")
        return folder

    yield make
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Fills it to the last byte."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    filler.write_bytes(bytes(found.f_bavail * found.f_frsize))
    return filler


# ── the cap ──


@pytest.mark.usefixtures("punching")
def test_head_and_tail_remain_of_ten_megabytes_under_a_cap_of_one(watch: Watch) -> None:
    one = watch()
    one.look()
    command = [sys.executable, "-c", WRITER, "0", "1000000", "4000"]
    writer = subprocess.Popen(command, stdout=one.fd)
    while writer.poll() is None:
        one.look()
    one.log.finish(one.now + 1)
    assert writer.returncode == 0
    assert one.size() == 10_000_000
    assert one.allocated() <= MIB
    content = one.path.read_bytes()
    assert content[: MIB // 4] == written(0, MIB // 4)
    assert content[-MIB // 2 :] == written(10_000_000 - MIB // 2, 10_000_000)
    assert one.log.dropped_bytes == content.count(0) > 8_000_000
    assert one.log.is_capped


@pytest.mark.usefixtures("punching")
@pytest.mark.parametrize("cap", [1, 65_536, 100_001, MIB, 3 * MIB + 7])
def test_no_cap_is_overstepped_once_it_was_looked(watch: Watch, cap: int) -> None:
    one = watch(cap_bytes=cap)
    for number in range(200):
        one.write(written(number * 50_000, (number + 1) * 50_000))
        one.look()
        assert one.allocated() <= max(cap, 16 * BLOCK)
    content = one.path.read_bytes()
    kept = max(cap, 16 * BLOCK)
    head = kept // 4 // BLOCK * BLOCK
    assert content[:head] == written(0, head)
    assert content[-(kept // 2) :] == written(10_000_000 - kept // 2, 10_000_000)


@pytest.mark.usefixtures("punching")
def test_a_log_within_its_cap_loses_nothing(watch: Watch) -> None:
    one = watch()
    one.write_lines(MIB // 8 * 7)
    one.log.finish(one.now + 1)
    assert one.log.dropped_bytes == 0
    assert one.path.read_bytes() == written(0, MIB // 8 * 7)


@pytest.mark.usefixtures("punching")
def test_what_stood_in_the_file_before_is_never_punched(watch: Watch) -> None:
    before = os.urandom(3 * MIB + 123)
    one = watch(before=before)
    one.write_lines(10 * MIB)
    content = one.path.read_bytes()
    assert content[: len(before)] == before
    assert one.allocated() <= len(before) + MIB + BLOCK
    head = MIB // 4 - BLOCK
    assert content[len(before) :][:head] == written(0, head)


def test_a_file_of_the_users_own_is_never_punched(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda fd: disk(free=0))
    one = watch(cap_bytes=None, keep_free_bytes=2**60)
    one.write_lines(5 * MIB)
    one.log.finish(one.now + 1)
    assert not one.log.is_capped
    assert one.path.read_bytes() == written(0, 5 * MIB)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_holes_is_asked_once(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked = []

    def refuse(fd: int, offset: int, length: int) -> None:
        asked.append(offset)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(linux, "punch_hole", refuse)
    one = watch()
    one.write_lines(4 * MIB)
    assert len(asked) == 1
    assert not one.log.is_capped
    assert one.log.dropped_bytes == 0


def test_a_disk_in_trouble_is_tried_again_and_told_to_nobody(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(linux, "punch_hole", lambda *_: os.stat("/dev/null/x"))
        one = watch()
        one.write_lines(4 * MIB)
        assert one.log.dropped_bytes == 0
    one.look()
    assert one.log.is_capped


def test_a_fast_writer_is_looked_at_sooner(watch: Watch) -> None:
    one = watch(cap_bytes=100 * MIB)
    assert one.look() == joblog.SOONEST_S, "how fast it is shows at the second look"
    assert one.look() == joblog.LOOK_S
    one.write(bytes(80 * MIB))
    assert one.look() == pytest.approx(0.125)
    one.write(bytes(80 * MIB))
    assert one.look(0.125) == joblog.SOONEST_S
    assert one.look() == joblog.LOOK_S


def test_who_calls_too_early_is_sent_away(watch: Watch) -> None:
    one = watch()
    one.look()
    one.look()
    one.write(b"x")
    assert one.look(0.25) == pytest.approx(0.75)
    assert one.entries()[-1][1] == 0
    one.look(-500.0)
    assert one.entries()[-1] == (one.now, 1), "a clock that was set back stops nothing"


# ── a disk that is almost full ──


def disk(*, free: int, size: int = 2**40) -> SimpleNamespace:
    return SimpleNamespace(f_blocks=size // BLOCK, f_frsize=BLOCK, f_bavail=free // BLOCK)


@pytest.mark.usefixtures("punching")
def test_a_log_shrinks_where_the_disk_is_almost_full(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = watch(cap_bytes=64 * MIB, keep_free_bytes=2**30)
    one.write_lines(60 * MIB)
    dropped = one.log.dropped_bytes
    monkeypatch.setattr(os, "fstatvfs", lambda fd: disk(free=2**30))
    one.look()
    assert one.log.dropped_bytes == dropped
    monkeypatch.setattr(os, "fstatvfs", lambda fd: disk(free=2**30 - BLOCK))
    one.look()
    assert one.allocated() <= 16 * MIB
    monkeypatch.setattr(os, "fstatvfs", lambda fd: disk(free=2**40))
    one.write(bytes(40 * MIB))
    one.look()
    assert 40 * MIB < one.allocated() <= 64 * MIB, "where there is room it takes it again"
    assert one.log.dropped_bytes == 60 * MIB - 12 * MIB


def test_a_small_disk_counts_as_full_only_in_its_last_twentieth(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = watch(cap_bytes=64 * MIB, keep_free_bytes=2**30)
    one.write_lines(20 * MIB)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: disk(free=50 * MIB, size=1000 * MIB))
    one.look()
    assert one.log.dropped_bytes == 0


def test_the_last_log_on_a_full_disk_makes_room(
    watch: Watch, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(40)
    one = watch(folder, cap_bytes=2**50, keep_free_bytes=2**30)
    one.write_lines(20 * MIB)
    fill(folder)
    one.look()
    assert one.allocated() <= 2 * MIB
    (folder / "database").write_bytes(bytes(16 * MIB))


def test_a_full_disk_spoils_no_line_of_the_index(
    watch: Watch, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(2)
    one = watch(folder)
    one.write_slowly(400)  # the log and its index both end within a block
    filler = fill(folder)
    one.write_slowly(400)
    before = one.entries()
    assert before[-1][1] < one.size() == 800
    filler.unlink()
    one.write_slowly(1)
    assert one.entries()[: len(before)] == before
    assert one.entries()[-1] == (one.now, one.size())


# ── the index ──


def test_the_index_tells_by_when_what_was_written(watch: Watch) -> None:
    one = watch(before=b"older\n")
    one.look()
    one.write(b"one\n")
    one.look(0.5)
    one.look(0.5)
    one.look()
    one.write(b"two\n")
    one.look(1.25)
    one.write(b"the last\n")
    one.log.finish(one.now + 0.001)
    assert one.index_path.read_text() == ("1001.000 6\n1003.000 10\n1004.250 14\n1004.251 23\n")


def test_what_came_before_the_first_look_waits_for_no_second_one(watch: Watch) -> None:
    one = watch()
    one.write(b"x")
    one.look()
    assert one.entries() == [(1001.0, 0), (1001.0, 1)]


def test_the_index_stays_small_however_long_a_job_writes(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblog, "MANY_ENTRIES", 100)
    one = watch()
    one.write_slowly(10_000)
    entries = one.entries()
    assert 600 < len(entries) < 800, "twice as far apart after each hundred"
    assert entries[-1][1] > 9_900


def test_a_log_may_go_without_an_index(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb+") as file:
        log = JobLog(file.fileno(), None, file.fileno(), cap_bytes=None, keep_free_bytes=0)
        file.write(b"end")
        file.flush()
        log.finish(1000.0)
        assert log.tail() == b"end"
        log.close()


def test_a_log_that_its_writer_may_not_read_has_no_tail(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = JobLog(file.fileno(), None, None, cap_bytes=None, keep_free_bytes=0)
        file.write(b"written by somebody else")
        file.flush()
        log.finish(1000.0)
        assert log.tail() == b""
        log.close()


# ── what a job does to its log ──


@pytest.mark.usefixtures("punching")
def test_a_log_that_was_truncated_is_watched_from_its_new_beginning(watch: Watch) -> None:
    one = watch()
    one.write_lines(4 * MIB)
    dropped = one.log.dropped_bytes
    os.truncate(one.path, 0)
    one.write(b"again\n")
    assert one.log.tail() == b"again\n"
    one.look()
    assert one.entries()[-1] == (one.now, 6)
    one.write_lines(4 * MIB)
    assert one.log.dropped_bytes > dropped > 3 * MIB
    assert one.allocated() <= MIB
    assert one.path.read_bytes()[:206] == b"again\n" + written(0, 200)


@pytest.mark.usefixtures("punching")
def test_a_log_cut_within_its_hole_is_capped_all_the_same(watch: Watch) -> None:
    one = watch()
    one.write_lines(4 * MIB)
    for size in (2 * MIB, MIB // 8):
        dropped = one.log.dropped_bytes
        os.truncate(one.path, size)
        one.look()
        assert one.log.dropped_bytes == dropped
        one.write_lines(3 * MIB)
        assert one.allocated() <= MIB
        assert one.path.read_bytes()[-MIB // 2 :] == written(3 * MIB - MIB // 2, 3 * MIB)


def test_a_file_that_was_appended_to_and_truncated_is_the_attempts_from_its_start(
    watch: Watch,
) -> None:
    one = watch(before=bytes(100))
    one.look()
    os.truncate(one.path, 0)
    one.write(b"mine")
    one.look()
    assert one.log.tail() == b"mine"


@pytest.mark.usefixtures("punching")
def test_a_log_that_was_deleted_is_capped_and_read_all_the_same(watch: Watch) -> None:
    one = watch()
    one.look()
    one.path.unlink()
    one.write_lines(4 * MIB)
    assert one.allocated() <= MIB
    assert one.log.tail(20) == written(4 * MIB - 20, 4 * MIB)


def test_the_tail_has_nothing_of_what_stood_there_before(watch: Watch) -> None:
    one = watch(before=b"older\n")
    assert one.log.tail() == b""
    one.write(b"its own\n")
    assert one.log.tail() == b"its own\n"
    assert one.log.tail(4) == b"own\n"


def test_a_job_that_closes_its_output_is_no_matter(watch: Watch) -> None:
    one = watch()
    subprocess.run(["sh", "-c", "echo bye; exec >&-; true"], stdout=one.fd, check=True)
    one.look()
    assert one.log.tail() == b"bye\n"


def pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    return writer, reader


def line() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


@pytest.mark.parametrize("ends", [pipe, line, os.openpty])
def test_what_is_no_file_is_left_alone_and_ends_with_the_job(
    ends: Callable[[], tuple[int, int]], tmp_path: Path
) -> None:
    job_end, other_end = ends()
    index = os.open(tmp_path / "log.index", os.O_WRONLY | os.O_CREAT)
    log = JobLog(job_end, index, cap_bytes=MIB, keep_free_bytes=2**60)
    assert log.tick(1000.0) >= 60
    assert log.tail() == b""
    log.finish(1001.0)
    assert not log.is_capped
    os.close(job_end)
    if ends is not os.openpty:
        assert os.read(other_end, 1) == b"", "no copy of it keeps its reader waiting"
    for fd in (other_end, index):
        os.close(fd)
    assert (tmp_path / "log.index").read_bytes() == b""


def test_a_device_is_left_alone(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as device:
        log = JobLog(device.fileno(), None, cap_bytes=MIB, keep_free_bytes=0)
        assert log.tick(1000.0) >= 60
        assert log.tail() == b""


def test_nothing_of_it_reaches_a_child(watch: Watch) -> None:
    one = watch()
    ran = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False, check=True
    )
    assert str(one.path) not in ran.stdout


def test_an_index_that_is_a_pipe_is_not_written(tmp_path: Path) -> None:
    """One that is full would keep who writes it for ever, and a job may have put it there."""
    log, pipe = tmp_path / "log", tmp_path / "log.index"
    log.write_text("something\n")
    os.mkfifo(pipe)
    index_fd, log_fd = os.open(pipe, os.O_RDWR | os.O_NONBLOCK), os.open(log, os.O_RDWR)
    looker = JobLog(log_fd, index_fd, cap_bytes=None, keep_free_bytes=0)
    looker.tick(1000.0)
    looker.finish(1001.0)
    looker.close()
    with pytest.raises(BlockingIOError):
        os.read(index_fd, 100)
    os.close(index_fd)
    os.close(log_fd)
