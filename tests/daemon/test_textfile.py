"""The file for node_exporter: whole at every moment, and never in anybody's way."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpuq import config
from gpuq.config import Config
from gpuq.daemon.metrics.textfile import Textfile, replace_file
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.errors import UsageError
from tests.desk import until


def settings(path: Path | None, every: str = "1s") -> Config:
    given = {} if path is None else {"metrics_textfile": str(path)}
    return config.load({**given, "metrics_every": every}, {"HOME": "/"})


def nothing() -> None: ...


async def hello() -> str:
    return "gpuq_info 1\n"


def living(textfile: Textfile, deed: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        running = asyncio.ensure_future(textfile.run())
        try:
            await asyncio.wait_for(deed(), 20.0)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_it_is_written_at_once_and_again_and_again(tmp_path: Path) -> None:
    path, count = tmp_path / "gpuq.prom", 0

    async def text() -> str:
        nonlocal count
        count += 1
        return f"gpuq_info {count}\n"

    async def deed() -> None:
        await until(path.exists, "the file")
        await until(lambda: path.read_text() == "gpuq_info 2\n", "the next one")

    living(Textfile(settings(path), text, nothing), deed)
    assert os.listdir(tmp_path) == ["gpuq.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_without_the_setting_nothing_is_written_until_there_is_one(tmp_path: Path) -> None:
    given, path = settings(None), tmp_path / "gpuq.prom"
    textfile = Textfile(given, hello, nothing)

    async def deed() -> None:
        await asyncio.sleep(0)
        assert not path.exists()
        given.take_over(settings(path))
        textfile.settings_changed()
        await until(path.exists, "the file")

    living(textfile, deed)


def test_a_reader_never_finds_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "gpuq.prom"
    texts = [letter * 200_000 for letter in "ab"]
    replace_file(str(path), texts[0])
    found: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        replace_file(str(path), texts[number % 2])
    done.set()
    reader.join()
    assert found <= set(texts)


def test_what_stands_in_its_way_is_logged_once_and_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "not there yet" / "gpuq.prom"
    textfile = Textfile(settings(path), hello, nothing)
    for _ in range(3):
        asyncio.run(textfile.write())
    told = capsys.readouterr().out
    assert told.count("could not be written") == 1
    assert "No such file or directory" in told
    path.parent.mkdir()
    asyncio.run(textfile.write())
    assert path.read_text() == "gpuq_info 1\n"


def test_a_folder_in_its_place_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "gpuq.prom"
    path.mkdir()
    asyncio.run(Textfile(settings(path), hello, nothing).write())
    assert os.listdir(tmp_path) == ["gpuq.prom"], "and no half of one stays behind"


def test_who_leaves_keeps_what_was_measured_even_on_a_full_disk(tmp_path: Path) -> None:
    kept = []

    def keep() -> None:
        kept.append(True)
        raise DiskTrouble("full")

    async def deed() -> None:
        await asyncio.sleep(0)

    living(Textfile(settings(tmp_path / "gpuq.prom"), hello, keep), deed)
    assert kept == [True]


def test_a_name_that_the_exporter_would_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not end in"):
        settings(tmp_path / "gpuq.txt")
    with pytest.raises(UsageError, match="too often"):
        settings(tmp_path / "gpuq.prom", every="0.1s")
