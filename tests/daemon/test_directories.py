"""Each attempt has directories of its own, and a job the same seed on each of its attempts."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.daemon.attempt.folders import remove_tree
from gpuq.daemon.attempt.steps import _link_to, remove_tmp_dir
from gpuq.daemon.upkeep import job_files
from tests.alive import Alive, with_alive

SEED = 2**32 - 3


async def requeue(daemon: Alive, job: int) -> None:
    """Once more from the queue, and to its end."""
    attempt = daemon.row(job)["attempt"]
    daemon.store.changed.requeue(job, job, actor="ann", now=daemon.clock.wall())
    daemon.loop.wake()
    await daemon.until(lambda: daemon.row(job)["attempt"] > attempt, "another attempt")
    await daemon.ended(job)


def job_dir(daemon: Alive, job: int) -> Path:
    return daemon.state_dir / "jobs" / str(job)


# ── seeds ──


def test_the_seed_of_an_element_is_that_of_its_array_and_its_index(tmp_path: Path) -> None:
    script = 'echo "$GPUQ_SEED" >> "$GPUQ_ARRAY_INDEX"; test "$GPUQ_ATTEMPT" = 2'

    async def deed(daemon: Alive) -> None:
        elements = Elements(indices=(range(4),))
        first = daemon.submit(script, elements=elements, seed=SEED, retries=1, backoff="1s")
        for job in range(first, first + 4):
            await daemon.waits_again(job)
        daemon.clock.awake_s += 2.0
        for job in range(first, first + 4):
            assert (await daemon.ended(job))["outcome"] == "succeeded"
        seeds = [(tmp_path / str(index)).read_text().split() for index in range(4)]
        assert seeds == [[str((SEED + index) % 2**32)] * 2 for index in range(4)]

    with_alive(tmp_path, deed)


def test_a_job_that_is_run_once_more_has_its_seed_again(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit('echo "$GPUQ_ATTEMPT $GPUQ_SEED" >> seeds', seed=SEED)
        await daemon.ended(job)
        await requeue(daemon, job)
        assert (tmp_path / "seeds").read_text() == f"1 {SEED}\n2 {SEED}\n"

    with_alive(tmp_path, deed)


# ── output ──


def test_sixteen_jobs_that_write_one_name_make_sixteen_files(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        elements = Elements(indices=(range(16),))
        script = 'echo "$GPUQ_ARRAY_INDEX" > "$GPUQ_OUTPUT_DIR/model"'
        first = daemon.submit(script, elements=elements)
        for job in range(first, first + 16):
            await daemon.ended(job)
        found = [(job_dir(daemon, first + n) / "output" / "model").read_text() for n in range(16)]
        assert found == [f"{index}\n" for index in range(16)]
        assert len(list((daemon.state_dir / "jobs").glob("*/*/output/model"))) == 16

    with_alive(tmp_path, deed)


def test_a_job_has_a_link_to_the_output_of_its_latest_attempt(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit('echo "$GPUQ_ATTEMPT" > "$GPUQ_OUTPUT_DIR/said"')
        await daemon.ended(job)
        link = job_dir(daemon, job) / "output"
        assert (os.readlink(link), (link / "said").read_text()) == ("1/output", "1\n")
        await requeue(daemon, job)
        assert (os.readlink(link), (link / "said").read_text()) == ("2/output", "2\n")
        assert (job_dir(daemon, job) / "1" / "output" / "said").read_text() == "1\n"

    with_alive(tmp_path, deed)


def test_what_a_user_has_put_in_the_place_of_the_link_stays(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit("true")
        await daemon.ended(job)
        link = job_dir(daemon, job) / "output"
        link.unlink()
        link.mkdir()
        (link / "mine").touch()
        await requeue(daemon, job)
        assert daemon.row(job)["outcome"] == "succeeded"
        assert [path.name for path in link.iterdir()] == ["mine"]

    with_alive(tmp_path, deed)


def test_whoever_looks_finds_the_old_link_or_the_new_one(tmp_path: Path) -> None:
    link, folders = tmp_path / "output", [tmp_path / str(n) / "output" for n in (1, 2)]
    for folder in folders:
        folder.mkdir(parents=True)
    _link_to(os.fsencode(folders[0]), os.fsencode(link))
    seen: set[str] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            try:
                seen.add(os.readlink(link))
            except FileNotFoundError:
                seen.add("none")

    watching = threading.Thread(target=look)
    watching.start()
    for n in range(4_000):
        _link_to(os.fsencode(folders[n % 2]), os.fsencode(link))
    is_over.set()
    watching.join()
    assert "none" not in seen
    assert seen <= {"1/output", "2/output"}


def test_a_link_that_was_left_half_made_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "1" / "output").mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.write_text("kept")
    os.symlink("0/output", tmp_path / "output")
    os.symlink(precious, tmp_path / "output.new")
    _link_to(os.fsencode(tmp_path / "1" / "output"), os.fsencode(tmp_path / "output"))
    assert os.readlink(tmp_path / "output") == "1/output"
    assert (precious.read_text(), os.path.lexists(tmp_path / "output.new")) == ("kept", False)


def left_by(folder: Path, *attempts: int, kept: int | None = None) -> Path:
    """What job 7 has left; attempt `kept` with something in its output directory."""
    job = folder / "jobs" / "7"
    for attempt in attempts:
        (job / str(attempt) / "output").mkdir(parents=True)
    if kept is not None:
        (job / str(kept) / "output" / "model").touch()
    os.symlink(f"{attempts[-1]}/output", job / "output")
    return job


def test_the_link_goes_with_what_it_leads_to(tmp_path: Path) -> None:
    job = left_by(tmp_path, 1, 2)
    job_files.remove(str(tmp_path), 7, 2)
    assert not os.path.lexists(job)


def test_the_link_stays_with_an_output_that_stays(tmp_path: Path) -> None:
    job = left_by(tmp_path, 1, 2, kept=2)
    job_files.remove(str(tmp_path), 7, 2)
    assert (job / "output" / "model").exists()
    job_files.remove(str(tmp_path), 7, 2, outputs=True)
    assert not os.path.lexists(job)


def test_a_link_to_an_output_that_was_empty_goes_though_an_earlier_one_stays(
    tmp_path: Path,
) -> None:
    job = left_by(tmp_path, 1, 2, kept=1)
    job_files.remove(str(tmp_path), 7, 2)
    assert sorted(path.name for path in job.rglob("*")) == ["1", "model", "output"]


def test_a_link_of_the_users_own_is_no_file_of_ours(tmp_path: Path) -> None:
    job = left_by(tmp_path, 1)
    (job / "output").unlink()
    os.symlink("/elsewhere", job / "output")
    job_files.remove(str(tmp_path), 7, 1)
    assert os.readlink(job / "output") == "/elsewhere"


# ── the private temporary directory ──


def test_each_attempt_has_a_short_temporary_directory_of_its_own(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit('touch "$TMPDIR/x"; echo "$TMPDIR" >> places')
        await daemon.ended(job)
        await requeue(daemon, job)
        places = (tmp_path / "places").read_text().split()
        assert len(set(places)) == 2
        # A socket's path has room for 107 bytes, and torch and its like add forty.
        assert all(len(place) < 60 and not os.path.exists(place) for place in places)

    with_alive(tmp_path, deed)


def test_what_a_job_leaves_in_it_goes_and_none_of_its_links_is_followed(tmp_path: Path) -> None:
    kept, left = tmp_path / "kept", tmp_path / "left"
    kept.mkdir()
    (kept / "file").touch()
    (left / "a" / "b").mkdir(parents=True)
    (left / "a" / "b" / "file").touch()
    os.mkfifo(left / "a" / "pipe")
    os.symlink(kept, left / "a" / "folder")
    os.symlink(kept / "file", left / "link")
    remove_tmp_dir(os.fsencode(left))
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(kept) == ["file"]


def test_what_cannot_be_removed_keeps_nothing_else_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, unlink = tmp_path / "left", os.unlink
    left.mkdir()
    for number in range(9):
        (left / str(number)).touch()

    def refuse(name: str, *, dir_fd: int) -> None:
        if name == "4":
            raise PermissionError
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    remove_tree(os.fspath(left))
    assert os.listdir(left) == ["4"]


def test_one_that_is_thousands_of_folders_deep_goes(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    at = os.open(left, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=at)
        above, at = at, os.open("deeper", os.O_RDONLY, dir_fd=at)
        os.close(above)
    os.close(at)
    try:
        remove_tmp_dir(os.fsencode(left))
        assert not left.exists()
    finally:
        # pytest, which takes away what its runs left three runs later, can't take such a one away.
        subprocess.run(["rm", "-rf", left], check=True)
