"""What stands in the file is in force once it is saved, however it is saved."""

import asyncio
import itertools
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.daemon import reloading
from gpuq.daemon.clock import Clock
from gpuq.daemon.reloading import Reloader
from gpuq.daemon.store import Store
from tests.desk import DEADLINE_S, until
from tests.stored import full


class Place:
    """A home with a file of settings in it, and a store for what is told of them."""

    def __init__(self, home: Path, **flags: Any) -> None:
        self.home = home
        self.file = home / ".config" / "gpuq" / "gpuq.toml"
        self.flags = flags
        self.store = Store(":memory:")
        self.changes = 0
        self.reads = 0

    def write(self, text: str) -> None:
        """At one stroke, so that nobody reads a part of it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        new.write_text(text)
        os.rename(new, self.file)

    def begin(self) -> None:
        """As the daemon does when it starts."""
        self.config = config.load(self.flags, {"HOME": str(self.home)})
        self.reloader = Reloader(
            self.config, self.store, Clock(), read=self.read, on_change=self.count
        )

    def read(self) -> config.Config:
        self.reads += 1
        return self.config.read_again()

    def count(self) -> None:
        self.changes += 1

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        rows, _ = self.store.told.events(0, 100)
        return [row for row in rows if row["kind"].startswith(kind)]

    def told(self) -> list[tuple[str, str]]:
        return [(row["kind"], row["cause"]) for row in self.events()]

    async def is_read(self) -> None:
        """The first look is over."""
        await until(lambda: self.reads, "the first look")

    async def goes_by(self, **values: Any) -> None:
        def is_so() -> bool:
            return all(getattr(self.config, name) == value for name, value in values.items())

        await until(is_so, f"{values} to be in force")

    async def is_told(self, kind: str, number: int = 1) -> None:
        await until(lambda: len(self.events(kind)) >= number, f"{kind} {number}")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    # A change between the first look and the beginning of the watch is found by the second look.
    monkeypatch.setattr(reloading, "LOOK_EVERY_S", 0.3)
    place = Place(tmp_path)
    yield place
    place.store.close()


@asynccontextmanager
async def following(place: Place) -> AsyncIterator[None]:
    place.begin()
    running = asyncio.ensure_future(place.reloader.run())
    try:
        await place.is_read()
        yield
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def follow(place: Place, deed: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with following(place):
            await asyncio.wait_for(deed(), 2 * DEADLINE_S)

    asyncio.run(main())


# ── however it is saved ──


def test_a_file_that_is_written_is_in_force(place: Place) -> None:
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.write("max_bypass = 2\ndeny_gpus = [3]\n")
        await place.goes_by(max_bypass=2, deny_gpus=("3",))
        assert place.config.policy().max_bypass == 2
        await until(lambda: place.changes, "the loop to hear of it")
        (event,) = place.events()
        assert event["kind"] == "config_changed"
        assert event["cause"] == "max_bypass 1 → 2; deny_gpus – → 3"
        assert json.loads(event["detail"]) == {
            "max_bypass": {"before": "1", "after": "2"},
            "deny_gpus": {"before": "–", "after": "3"},
        }

    follow(place, deed)
    assert place.changes == 1


def test_a_file_that_takes_the_place_of_another_is_in_force(place: Place) -> None:
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        for number in range(2, 5):  # the second one is another file than the first
            place.write(f"max_bypass = {number}\n")
            await place.goes_by(max_bypass=number)

    follow(place, deed)
    assert place.changes == 3


@pytest.mark.parametrize("there", [".", ".config", ".config/gpuq"])
def test_a_file_that_comes_later_is_in_force(place: Place, there: str) -> None:
    (place.home / there).mkdir(parents=True, exist_ok=True)

    async def deed() -> None:
        place.write("max_bypass = 2\n")
        await place.goes_by(max_bypass=2)
        place.write("max_bypass = 3\n")
        await place.goes_by(max_bypass=3)

    follow(place, deed)


def test_the_file_that_a_link_leads_to_is_what_counts(place: Place, tmp_path: Path) -> None:
    """As with those who keep their settings elsewhere and link to them."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a").write_text("max_bypass = 1\n")
    place.file.parent.mkdir(parents=True)
    place.file.symlink_to(kept / "a")

    async def deed() -> None:
        (kept / "a").write_text("max_bypass = 2\n")
        await place.goes_by(max_bypass=2)
        (kept / "b").write_text("max_bypass = 3\n")
        os.rename(kept / "b", kept / "a")
        await place.goes_by(max_bypass=3)
        (kept / "c").write_text("max_bypass = 4\n")
        link = place.file.with_suffix(".new")
        link.symlink_to(kept / "c")
        os.rename(link, place.file)
        await place.goes_by(max_bypass=4)
        (kept / "c").write_text("max_bypass = 5\n")
        await place.goes_by(max_bypass=5)

    follow(place, deed)


def test_a_directory_that_is_changed_as_a_whole_is_followed(place: Place) -> None:
    """As Kubernetes does it: file → ..data/file, and ..data → the files of one version."""
    folder = place.file.parent
    for version in (1, 2, 3):
        (folder / f"..{version}").mkdir(parents=True)
        (folder / f"..{version}" / "gpuq.toml").write_text(f"max_bypass = {version}\n")
    (folder / "..data").symlink_to("..1")
    place.file.symlink_to("..data/gpuq.toml")

    async def deed() -> None:
        for version in (2, 3):
            (folder / "..new").symlink_to(f"..{version}")
            os.rename(folder / "..new", folder / "..data")
            await place.goes_by(max_bypass=version)

    follow(place, deed)


def test_without_the_file_all_is_as_by_default_but_for_flags(place: Place) -> None:
    place.flags = {"max_bypass": "7"}
    place.write("max_bypass = 1\nmax_jobs_per_gpu = 2\n")

    async def deed() -> None:
        assert place.config.max_jobs_per_gpu == 2
        place.file.unlink()
        await place.goes_by(max_jobs_per_gpu=8, max_bypass=7)
        place.write("max_jobs_per_gpu = 3\n")
        await place.goes_by(max_jobs_per_gpu=3)
        place.file.unlink()
        place.file.parent.rmdir()
        place.file.parent.parent.rmdir()
        await place.goes_by(max_jobs_per_gpu=8)
        place.write("max_jobs_per_gpu = 4\n")
        await place.goes_by(max_jobs_per_gpu=4)

    follow(place, deed)


def test_a_file_that_is_still_being_written_is_not_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("max_bypass = 1\n")
    steps = ["", "max_byp", "max_bypass = 2\n"]

    def write_on(seconds: float) -> None:
        if place.reads and steps:
            place.file.write_text(steps.pop(0))
        time.sleep(seconds)

    class Hurried:
        sleep = staticmethod(write_on)

    monkeypatch.setattr(reloading, "time", Hurried)

    async def deed() -> None:
        place.file.write_text("")
        await place.goes_by(max_bypass=2)

    follow(place, deed)
    assert place.told() == [("config_changed", "max_bypass 1 → 2")]


def test_what_has_not_changed_is_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    seen = [0]
    mark = reloading._mark

    def counted(path: str) -> tuple[int, ...]:
        seen[0] = next(looks)
        return mark(path)

    monkeypatch.setattr(reloading, "_mark", counted)
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.write("max_bypass = 2\n")
        await place.goes_by(max_bypass=2)
        reads, before = place.reads, seen[0]
        place.file.read_text()
        (place.file.parent / "other.toml").write_text("max_bypass = 3\n")
        await until(lambda: seen[0] > before + 3, "some more looks")
        assert place.reads == reads

    follow(place, deed)


# ── where there is news of changes, and where there is none ──


@pytest.mark.parametrize("kind", ["plain", "link", "not there yet"])
def test_news_come_without_looking(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(reloading, "LOOK_EVERY_S", 3600.0)
    target = place.file
    if kind == "link":
        target = tmp_path / "kept" / "gpuq.toml"
        target.parent.mkdir()
        place.file.parent.mkdir(parents=True)
        place.file.symlink_to(target)
    if kind != "not there yet":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()

    async def deed() -> None:
        for number in range(1, 4):  # what comes before the watch has begun is not told of
            target.parent.mkdir(parents=True, exist_ok=True)
            deadline = time.monotonic() + DEADLINE_S
            while place.config.max_bypass != number:
                assert time.monotonic() < deadline, "no news came"
                target.write_text(f"max_bypass = {number}\n")
                await asyncio.sleep(3.5 * reloading.STILL_S)  # it is read when it stands still

    follow(place, deed)


def test_a_change_of_which_there_is_no_news_is_found_all_the_same(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system of another machine."""
    silent = tmp_path / "silent"
    silent.mkdir()
    real = reloading.watch
    monkeypatch.setattr(reloading, "watch", lambda *folders, **how: real(silent, **how))
    monkeypatch.setattr(reloading, "LOOK_EVERY_S", 0.2)
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.write("max_bypass = 2\n")
        await place.goes_by(max_bypass=2)

    follow(place, deed)


def test_where_nothing_can_be_watched_the_file_is_looked_at(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*folders: str, **how: Any) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(reloading, "watch", refuse)
    monkeypatch.setattr(reloading, "LOOK_EVERY_S", 0.05)
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.write("max_bypass = 2\n")
        await place.goes_by(max_bypass=2)

    follow(place, deed)


def test_whoever_asks_has_the_file_read_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it looks as it did: a file system may tell too little of the times of its files."""
    monkeypatch.setattr(reloading, "_mark", lambda path: (1,))
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.write("max_bypass = 2\n")
        place.reloader.reload()
        await place.goes_by(max_bypass=2)
        reads = place.reads
        place.reloader.reload()
        await until(lambda: place.reads > reads, "another look")

    follow(place, deed)
    assert place.changes == 1


# ── what is wrong ──


def test_a_file_that_is_wrong_changes_nothing_and_is_told_once(place: Place) -> None:
    place.write("max_bypass = 1\n")
    why = f"{place.file}: max_bypass: 'many' is not a whole number from 0 to 1000"

    async def deed() -> None:
        place.write('max_jobs_per_gpu = 2\nmax_bypass = "many"\n')
        await place.is_told("config_rejected")
        assert (place.config.max_bypass, place.config.max_jobs_per_gpu) == (1, 8)
        assert place.config.notes() == [
            f"the file was changed and cannot be read: {why}; the settings before stay in force"
        ]
        reads = place.reads
        place.write('max_jobs_per_gpu = 3\nmax_bypass = "many"\n')
        await until(lambda: place.reads > reads, "another look")
        place.write("max_bypass = 1\n")
        await until(lambda: not place.config.notes(), "the fault to be over")
        place.write('max_bypass = "many"\n')
        await place.is_told("config_rejected", 2)

    follow(place, deed)
    again = "the file can be read again, and changes nothing"
    assert place.told() == [
        ("config_rejected", why),
        ("config_changed", again),
        ("config_rejected", why),
    ]
    assert place.changes == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("max_bypas = 2\n", "there is no setting 'max_bypas'; did you mean max_bypass?"),
        ("max_bypass = \n", "Invalid value (at line 1"),
        ("\udcff", "'utf-8' codec can't decode"),
    ],
)
def test_each_kind_of_fault_is_a_sentence(place: Place, text: str, why: str) -> None:
    async def deed() -> None:
        place.file.write_bytes(text.encode(errors="surrogateescape"))
        await place.is_told("config_rejected")
        assert why in (place.config.fault or "")

    place.write("")
    follow(place, deed)


def test_a_file_that_cannot_be_read_is_no_file_that_is_gone(place: Place) -> None:
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.file.unlink()
        place.file.symlink_to(place.file)  # round and round
        await place.is_told("config_rejected")
        assert place.config.max_bypass == 1
        assert "cannot read the config file" in place.config.notes()[0]

    follow(place, deed)


def test_after_a_pipe_in_its_place_a_file_is_in_force_again(place: Place) -> None:
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.file.unlink()
        os.mkfifo(place.file)
        await place.is_told("config_rejected")
        assert "a pipe" in place.config.notes()[0]
        place.write("max_bypass = 2\n")
        await place.goes_by(max_bypass=2)

    follow(place, deed)


def test_a_file_that_was_asked_for_must_stay(place: Place, tmp_path: Path) -> None:
    place.file = tmp_path / "mine.toml"
    place.flags = {"config": str(place.file)}
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        place.file.unlink()
        await place.is_told("config_rejected")
        assert place.config.max_bypass == 1
        place.write("max_bypass = 2\n")
        await place.goes_by(max_bypass=2)

    follow(place, deed)


def test_what_takes_a_restart_is_told_once_and_not_done(place: Place) -> None:
    async def deed() -> None:
        place.write('gpus = "sim:4x24G"\n')
        await place.is_told("restart_needed")
        assert place.config.gpus == "nvml"
        place.write('gpus = "sim:4x24G"\nmax_bypass = 2\n')
        await place.goes_by(max_bypass=2)
        place.write('gpus = "none"\n')
        await place.is_told("restart_needed", 2)
        note = "restart needed: gpus (now nvml, the file says none): gpuq daemon restart"
        assert place.config.notes() == [note]
        place.write("")
        await until(lambda: not place.config.notes(), "the wish to be gone")

    follow(place, deed)
    assert [event["cause"] for event in place.events("restart_needed")] == [
        "gpus nvml → sim:4x24G: gpuq daemon restart",
        "gpus nvml → none: gpuq daemon restart",
    ]


# ── whatever happens ──


def test_a_full_disk_does_not_keep_a_setting_from_being_in_force(place: Place) -> None:
    place.write("max_bypass = 1\n")

    async def deed() -> None:
        with full(place.store):
            place.write("max_bypass = 2\n")
            await until(lambda: place.changes, "the loop to hear of it")
        assert place.config.max_bypass == 2

    follow(place, deed)
    assert not place.events("config")


def test_a_disk_that_hangs_holds_up_neither_the_daemon_nor_its_leaving(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "LEAVE_S", 0.05)
    hanging, release, gone = threading.Event(), threading.Event(), threading.Event()

    def hang() -> config.Config:
        place.reads += 1
        hanging.set()
        release.wait(DEADLINE_S)
        gone.set()
        raise AssertionError("nobody is there any more")

    monkeypatch.setattr(place, "read", hang)

    async def deed() -> None:
        await until(hanging.is_set, "the disk to hang")
        assert place.config.max_bypass == 10

    try:
        follow(place, deed)
        assert not gone.is_set(), "nobody waited for it"
    finally:
        release.set()


def test_a_fault_of_ours_is_not_hidden(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> config.Config:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(place, "read", fail)

    async def main() -> None:
        place.begin()
        with pytest.raises(KeyError, match="a fault of ours"):
            await asyncio.wait_for(place.reloader.run(), DEADLINE_S)

    asyncio.run(main())
