"""No file that a job puts in the place of its report does harm."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuq.core.results.reported import MOST_LINES, Told
from gpuq.daemon.report_files import MOST_UNREAD, Place
from gpuq.daemon.store.reported import Reporter
from tests.reported import numbered
from tests.stored import NOW

MOST = 2**20


class Files:
    """One attempt's files, and what has been told by now."""

    def __init__(self, folder: Path, owner: int | None = None) -> None:
        self.folder = folder / "jobs" / "5" / "1"
        self.folder.mkdir(parents=True)
        (folder / "attempt").mkdir()
        self.report = self.folder / "report"
        self.place = Place(
            jobs_dir=str(folder / "jobs"),
            attempt_dir=str(folder / "attempt"),
            reporter=Reporter(job=5, attempt=1, uid=1000, began_at=0.0),
            owner=os.getuid() if owner is None else owner,
        )
        self.told = Told()

    def look(self, most_bytes: int = MOST, *, is_last: bool = False) -> Told:
        found = self.place.look(self.told, most_bytes, now=NOW, is_last=is_last)
        self.told = found.told
        return self.told

    def all(self) -> Told:
        """Look by look."""
        while (before := self.told) != self.look():
            assert before.read_bytes != self.told.read_bytes or before.file is None
        return self.told


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_file_that_is_appended_to_is_read_on(files: Files) -> None:
    assert files.look() == Told(), "it is not there yet"
    files.report.write_text(numbered(1, 2))
    assert files.look().lines == 2
    measure = files.place.measure()
    assert files.place.measure() == measure, "nothing new"
    with files.report.open("a") as file:
        file.write(numbered(3))
    assert files.place.measure() != measure
    assert (files.look().lines, files.told.metrics) == (3, {"step": 3})


def test_a_copy_of_all_lines_changes_nothing(files: Files) -> None:
    files.report.write_text(numbered(1, 2, 3))
    files.look()
    with files.report.open("a") as file:
        file.write(numbered(1, 2, 3))
    assert (files.look().lines, files.told.metrics) == (3, {"step": 3})


@pytest.mark.parametrize("how", ["truncated", "replaced", "rewritten longer", "same inode number"])
def test_a_file_that_is_written_anew_is_read_anew_and_nothing_counts_twice(
    files: Files, how: str
) -> None:
    files.report.write_text(numbered(1, 2, 3))
    files.look()
    if how == "replaced":
        other = files.folder / "other"
        other.write_text(numbered(2, 3, 4))
        other.rename(files.report)
    elif how == "truncated":
        files.report.write_text(numbered(4))
    elif how == "rewritten longer":
        files.report.write_text(numbered(4, 3, 2, 1))
    else:
        files.report.unlink()
        files.report.write_text(numbered(4, 5) + " " * 500)
    files.look()
    assert files.told.lines == (5 if how == "same inode number" else 4)
    assert files.told.missed == 0


def test_a_flood_is_skipped_but_for_its_end_and_named(files: Files) -> None:
    with files.report.open("wb") as file:
        file.truncate(3 * MOST_UNREAD)  # takes no room: it is a hole
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + numbered(7).encode())
    files.all()
    assert files.told.metrics == {"step": 7}
    words = files.told.skipped_bytes
    assert 2 * MOST_UNREAD <= words < 2 * MOST_UNREAD + 100
    assert "longer than 4 KiB" in files.told.troubles.get("line", "longer than 4 KiB")


def test_the_last_look_is_bounded_and_sees_the_end(files: Files) -> None:
    files.report.write_text(numbered(*range(1, 1001)))
    files.look(10_000, is_last=True)
    assert files.told.metrics == {"step": 1000}
    assert files.told.skipped_bytes == files.report.stat().st_size - 10_000


def test_of_short_lines_only_so_many_are_taken_in_at_once(files: Files) -> None:
    files.report.write_bytes(b"x\n" * 3 * MOST_LINES)
    assert files.look().refused == MOST_LINES
    assert files.all().refused == 3 * MOST_LINES


def test_a_pipe_keeps_nobody_waiting(files: Files) -> None:
    os.mkfifo(files.report)
    assert files.look().troubles == {"file": "its report cannot be read: it is no file"}


@pytest.mark.parametrize("where", ["report", "attempt", "job"])
def test_no_link_is_followed(files: Files, tmp_path: Path, where: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "1").mkdir(parents=True)
    (elsewhere / "report").write_text(numbered(9))
    (elsewhere / "1" / "report").write_text(numbered(9))
    if where == "report":
        files.report.symlink_to(elsewhere / "report")
    elif where == "attempt":
        files.folder.rmdir()
        files.folder.symlink_to(elsewhere)
    else:
        files.folder.rmdir()
        files.folder.parent.rmdir()
        files.folder.parent.symlink_to(elsewhere)
    told = files.look()
    assert (told.lines, told.metrics) == (0, {})
    assert told.troubles["file"].startswith("its report cannot be read: ")


def test_what_belongs_to_another_user_is_not_read(tmp_path: Path) -> None:
    files = Files(tmp_path, owner=os.getuid() + 1)
    files.report.write_text(numbered(1))
    told = files.look()
    assert told.lines == 0
    why = f"its report cannot be read: it belongs to uid {os.getuid()}"
    assert told.troubles == {"file": why}


@pytest.mark.skipif(os.getuid() != 0, reason="to mount something takes root")
def test_what_is_mounted_there_is_not_even_asked(tmp_path: Path) -> None:
    files = Files(tmp_path, owner=os.getuid() + 1)
    files.report.write_text(numbered(1))
    os.chown(files.report, os.getuid() + 1, -1)
    with mounted(files.folder):
        why = "its report cannot be read: something is mounted over it"
        assert files.look().troubles == {"file": why}


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as other:
        if os.system(f"mount --bind {other} {folder}") != 0:
            pytest.skip("nothing can be mounted here")
        try:
            yield
        finally:
            os.system(f"umount {folder}")
