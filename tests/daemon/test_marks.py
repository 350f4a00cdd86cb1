"""Marks: who was started to deliver a notice and has not begun never begins once another daemon is
there, and a mark that says nothing costs its own notice alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpuq.daemon.linux import processes
from gpuq.daemon.notices import child, deliver, mark
from tests.alive import Alive, with_alive
from tests.noticed import notices, settled


def test_who_was_stopped_before_its_mark_does_not_go_on_under_the_next_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, started, done = tmp_path / "go", tmp_path / "started", tmp_path / "done"
    program = f"{sys.executable} -P -m gpuq.daemon.notices.deliver"
    waits = f"echo $$ > {started}; while [ ! -e {go} ]; do sleep 0.01; done; exec {program}"

    async def first(daemon: Alive) -> None:
        monkeypatch.setattr(child, "COMMAND", ("/bin/sh", "-c", waits))
        await daemon.ended(daemon.submit("true", on_end=f"echo x >> {done}"))
        await daemon.until(lambda: started.exists() and started.read_text().strip(), "its process")

    async def second(daemon: Alive) -> None:
        monkeypatch.undo()
        (end,) = await settled(daemon)
        assert (end["state"], end["tries"], done.read_text()) == ("done", 1, "x\n")
        late = processes.identity(int(started.read_text()))
        assert late is not None, "it is there still"
        go.touch()
        await daemon.until(lambda: not processes.is_alive(*late), "its end")
        assert done.read_text() == "x\n"
        assert not list((daemon.state_dir / "notices").glob("*/*"))

    with_alive(tmp_path, first, leave=True)
    with_alive(tmp_path, second)


def test_a_process_whose_folder_was_taken_over_says_that_it_has_not_begun(tmp_path: Path) -> None:
    theirs, ours = (mark.folder_in(str(tmp_path)) for _ in range(2))
    os.mkdir(theirs)
    order = json.dumps({"mark": mark.path_of(theirs, 1, 1)})
    mark.take_over(str(tmp_path), ours)
    assert not os.path.exists(theirs)
    ran = subprocess.run(child.COMMAND, input=order, text=True, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (deliver.NOT_BEGUN, "")


def test_what_is_taken_over_is_whole_and_held_still(tmp_path: Path) -> None:
    theirs, ours = (mark.folder_in(str(tmp_path)) for _ in range(2))
    os.mkdir(theirs)
    held = mark.make(mark.path_of(theirs, 7, 2), 42, 99)
    assert held is not None
    Path(theirs, "8.1.deadbeef").touch()  # the draft of one who goes on soon
    mark.take_over(str(tmp_path), ours)
    mark.finish(held, {"trouble": None, "output": "said"})
    path = mark.path_of(ours, 7, 2)
    assert os.listdir(ours) == ["7.2"]
    assert mark.read(path) == mark.Mark(42, 99, True, {"trouble": None, "output": "said"})
    mark.take_over(str(tmp_path), ours)
    assert os.listdir(tmp_path) == [os.path.basename(ours)], "its own it leaves"
    os.close(held)


def test_who_is_overtaken_while_it_makes_its_mark_has_begun_or_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another daemon comes just before the mark appears, or just after."""
    link = os.link

    def overtake(before: bool) -> int | None:
        theirs, ours = (mark.folder_in(str(tmp_path)) for _ in range(2))
        os.mkdir(theirs)

        def overtaken(draft: str, path: str) -> None:
            if before:
                mark.take_over(str(tmp_path), ours)
            link(draft, path)
            mark.take_over(str(tmp_path), ours)

        monkeypatch.setattr(os, "link", overtaken)
        held = mark.make(mark.path_of(theirs, 7, 1), 42, 99)
        assert os.listdir(ours) == ([] if before else ["7.1"])
        return held

    assert overtake(before=True) is None
    held = overtake(before=False)
    assert held is not None
    os.close(held)


WHO = b'{"pid": 42, "start": 99}\n'


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b"\0" * 64, b"[]\n", b"7\n", b"{}\n", b"[" * 9999),
        *(b'{"pid": -1, "start": 99}\n', b'{"pid": 1e999, "start": 99}\n'),
        *(WHO + b"\n\n", WHO + b"{}\n", WHO + b'{"trouble": 1, "output": ""}\n'),
        WHO + b'{"trouble": null, "output": "\\ud800"}\n',
        None,  # a directory
    ],
    ids=str,
)
def test_a_mark_that_makes_no_sense_is_named_as_that(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "7.1"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(mark.Unreadable):
        mark.read(str(path))


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "a directory"])
def test_a_mark_that_cannot_be_read_costs_its_own_notice_alone(
    tmp_path: Path, content: bytes | None
) -> None:
    async def first(daemon: Alive) -> None:
        daemon.loop._messenger._begin = lambda notice: None  # type: ignore[method-assign]
        await daemon.ended(daemon.submit("true", on_end=f"echo x >> {tmp_path}/done"))
        await daemon.until(lambda: notices(daemon)[0]["state"] == "claimed", "its claim")
        path = daemon.state_dir / "notices" / "old" / "1.1"
        path.parent.mkdir(parents=True)
        path.mkdir() if content is None else path.write_bytes(content)

    async def second(daemon: Alive) -> None:
        (end,) = await settled(daemon)
        assert end["state"] == "unknown", "nobody knows whether it was done"
        await daemon.ended(daemon.submit("true", on_end=f"echo y >> {tmp_path}/done"))
        assert (await settled(daemon, 2))[1]["state"] == "done"
        assert (tmp_path / "done").read_text() == "y\n"

    with_alive(tmp_path, first, leave=True)
    with_alive(tmp_path, second)
