"""Reading a log in blocks, however large it is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

import pytest

from gpuq.daemon.linux import syscalls
from gpuq.follow import LogFile, open_log
from gpuq.tui.log_reader import BLOCK, LEAP, MOST_LINES, Block, LogReader, News, Which
from tests.cli.said import Said, in_full, running

KIB = 2**10


@contextmanager
def reading(path: Path, *, is_ours: bool = True) -> Iterator[LogFile]:
    log = LogFile(open_log(str(path)), is_ours=is_ours)
    try:
        yield log
    finally:
        log.close()


def test_a_block_begins_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first line\nsecond line\nthird line\n")
    with reading(path) as log:
        assert log.start_of_block(15) == 23
        assert log.start_of_block(15, 23) == 11
        assert log.start_of_block(1000) == 0


def test_a_block_amidst_a_line_without_end_begins_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000)
    with reading(path) as log:
        assert log.start_of_block(100) == 900
        assert log.start_of_block(100, 50) == 0


def test_a_hole_is_no_part_of_a_block(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"head\n" * 2000 + b"tail\n" * 20_000)
    with path.open("r+b") as file:
        syscalls.punch_hole(file.fileno(), 16 * KIB, 64 * KIB)
    with reading(path) as log:
        behind = path.stat().st_size - 80 * KIB
        begin = log.start_of_block(behind + 8000)
        assert 16 * KIB - 8000 <= begin < 16 * KIB - 8000 + len("head\n")
        log.position = begin
        text = b"".join(log.read())
    assert b"head\n" in text
    assert b"64.0 KiB of this log were dropped" in text
    assert len(text) < behind + 8100


# ── the thread ──


class Told:
    """Who hears what a reader tells."""

    def __init__(self, job: Said) -> None:
        self.job = job
        self.asked = 0
        self.reader = LogReader(Which(181), show=self._show, tell=self._tell)
        self._news: Queue[News] = Queue()

    def block(self, patience_s: float = 10.0) -> Block:
        """The next that is told."""
        while (block := self._news.get(timeout=patience_s).block) is None:
            pass
        return block

    def shown(self, end: int) -> None:
        self.reader.shown(end, follows=True, reads_on=True)

    def _show(self, number: int) -> Said:
        self.asked += 1
        return self.job

    def _tell(self, news: News) -> None:
        self._news.put(news)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(in_full(running(181, log=str(tmp_path / "log"))))
    yield told
    told.reader.stop()
    told.reader._thread.join()


def test_nothing_more_is_read_before_what_was_read_is_shown(tmp_path: Path, told: Told) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n")
    told.reader.start()
    assert told.block().chunks == [(b"one\n", 4)]
    with log.open("ab") as file:
        file.write(b"two\n")
    assert told.reader._pause() is None
    told.reader.look_again()
    with pytest.raises(Empty):
        told.block(0.05)
    told.shown(4)
    assert told.block().chunks == [(b"two\n", 8)]
    assert told.asked == 2


def test_no_block_is_large_however_large_the_log(tmp_path: Path, told: Told) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(20 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n" + b"x" * 100)
    told.job["output"] = str(log)  # so that its hole is zeros like any others
    told.reader.start()
    last = told.block()
    assert last.chunks == [(b"the end\n" + b"x" * 100, last.end)]
    told.shown(last.end)
    told.reader.ask("before", last.begin)
    block = told.block()
    assert sum(len(chunk) for chunk, _ in block.chunks) == BLOCK
    assert (block.begin, block.end) == (last.begin - BLOCK, last.begin)


def test_a_flood_of_newlines_is_put_before_in_small_parts(tmp_path: Path, told: Told) -> None:
    (tmp_path / "log").write_bytes(b"y\n" * 2 * BLOCK)
    told.reader.start()
    last = told.block()
    told.shown(last.end)
    told.reader.ask("before", last.begin)
    block = told.block()
    assert (block.place, block.end) == ("before", last.begin)
    assert block.begin == last.begin - 2 * MOST_LINES


def test_a_flood_that_nobody_follows_comes_in_small_parts_too(tmp_path: Path, told: Told) -> None:
    (tmp_path / "log").write_bytes(b"y\n" * BLOCK)
    told.reader.start()
    last = told.block()
    told.reader.shown(last.end, follows=False, reads_on=False)
    told.reader.ask("head")
    block = told.block()
    assert (block.place, block.begin, block.end) == ("anew", 0, 2 * MOST_LINES)


def test_what_passes_by_too_fast_is_followed_in_leaps(tmp_path: Path, told: Told) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"begun\n")
    told.reader.start()
    told.shown(told.block().end)
    with log.open("ab", buffering=0) as file:
        file.write(b"a line that nobody can read\n" * 100_000)
    block = told.block()
    while block.place != "anew":  # the reader came while it was being written
        told.shown(block.end)
        block = told.block()
    assert sum(len(chunk) for chunk, _ in block.chunks) <= LEAP
