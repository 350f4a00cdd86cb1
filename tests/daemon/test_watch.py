"""What a runner sees of its job while that runs, and what it tells of it in the end."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.daemon.attempt import record
from gpuq.daemon.attempt.progress import last_progress
from gpuq.daemon.attempt.report import LONGEST_WORDS, LOOKED_AT_BYTES, told_out_of_memory
from gpuq.daemon.attempt.steps import Files
from gpuq.daemon.attempt.watch import LAST_OUTPUT_BYTES, Watch
from tests.builders import STEADY
from tests.desk import Desk, run, until, with_desk

WAIT = "while ! [ -e go ]; do sleep 0.01; done"


# ─── what a job reports of itself ────────────────────────────────────────────────────────────────


def line(event: Any = "out_of_memory", **more: Any) -> bytes:
    return json.dumps({"by": "9f2c", "n": 1, "event": event} | more).encode() + b"\n"


def told(report: bytes) -> str | None:
    """What is read from a file with this in it."""
    fd = os.memfd_create("report")
    try:
        os.write(fd, report)
        return told_out_of_memory(fd)
    finally:
        os.close(fd)


def test_a_job_that_says_so_ran_out_of_memory() -> None:
    assert told(line(message="no room for 20 GiB")) == "no room for 20 GiB"
    assert told(line("beat") + line(message="no room") + line("beat")) == "no room"
    assert told(line()) == "the job says so"


def test_the_last_it_said_of_it_counts() -> None:
    assert told(line(message="first") + line(message="second")) == "second"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"out_of_memory",
        b"out_of_memory\n" * 100,
        b'{"event": "out_of_memory"',  # what a full disk has left of a line
        b'"out_of_memory"\n',
        b'["out_of_memory"]\n',
        b'{"message": "out_of_memory"}\n',
        line(["out_of_memory"]),
        line(None, v="out_of_memory"),
        b"[" * 60_000 + b"out_of_memory\n",
        b"9" * 60_000 + b" out_of_memory\n",
        bytes(range(256)) * 300 + b"out_of_memory",
        b"\0" * 200_000,
    ],
    ids=lambda rubbish: repr(rubbish[:20]),
)
def test_rubbish_says_nothing_and_hides_nothing_before_it(rubbish: bytes) -> None:
    assert told(rubbish) is None
    if len(rubbish) < LOOKED_AT_BYTES - 1000:
        assert told(line(message="no room") + rubbish) == "no room"


def test_only_the_end_of_a_report_is_looked_at_however_large_it_is() -> None:
    fd = os.memfd_create("report")
    try:
        os.write(fd, line(message="long ago"))
        os.truncate(fd, 2**40)
        began = time.process_time()
        assert told_out_of_memory(fd) is None
        os.pwrite(fd, b"\n" + line(message="just now"), 2**40)
        assert told_out_of_memory(fd) == "just now"
        assert time.process_time() - began < 1.0
    finally:
        os.close(fd)


@pytest.mark.parametrize("message", ["x" * 5000, {"a": ["b"] * 500}, "\x1b[31m\n\ud800", 7, True])
def test_its_words_are_a_short_line(message: Any) -> None:
    words = told(line(message=message))
    assert words is not None
    assert len(words) <= LONGEST_WORDS
    assert words.isprintable()


@STEADY
@given(st.lists(st.binary(max_size=80) | st.just(line(message="no room")), max_size=6))
def test_whatever_stands_in_a_report_its_reader_survives_it(parts: list[bytes]) -> None:
    words = told(b"".join(parts))
    assert words is None or words.isprintable()


def test_there_need_not_be_a_report() -> None:
    assert told_out_of_memory(-1) is None


# ─── signs of life ───────────────────────────────────────────────────────────────────────────────


class Watched:
    """A watch over a report, without a job. `before` is done between its making and its beginning."""

    def __init__(
        self, folder: Path, heartbeat_s: float | None, before: Callable[[Path], object] = Path.touch
    ) -> None:
        self.folder = str(folder)
        self.report = folder / "report"
        self.report.touch()
        files = Files()
        self.log = folder / "log"
        files.log = os.open(self.log, os.O_WRONLY | os.O_CREAT)
        files.log_reader = os.open(self.log, os.O_RDONLY)
        files.folder = os.open(folder, os.O_PATH)  # for as long as the test
        order = {
            "report": str(self.report),
            "attempt_dir": self.folder,
            "heartbeat_s": heartbeat_s,
            "log_cap_bytes": None,
        }
        self.watch = Watch(order, files)
        before(self.log)
        self.watch.begin()
        os.close(files.log)
        os.close(files.log_reader)

    def beats(self) -> bool:
        """Is another sign of life noticed when it is next looked for?"""
        before = record.last_beat(self.folder)
        time.sleep(self.watch.look())
        self.watch.look()
        return record.last_beat(self.folder) != before


def test_any_change_of_the_report_is_a_sign_of_life_and_nothing_else(tmp_path: Path) -> None:
    watched = Watched(tmp_path, heartbeat_s=0.1)
    assert not watched.beats()
    (tmp_path / "new").touch()
    deeds: list[Callable[[], object]] = [
        lambda: watched.report.write_bytes(b"\n"),
        lambda: watched.report.write_bytes(b"\n\n"),
        lambda: os.truncate(watched.report, 0),
        lambda: (tmp_path / "new").replace(watched.report),
        watched.report.unlink,
        lambda: watched.report.symlink_to("other"),
    ]
    for deed in deeds:
        deed()
        assert watched.beats()
        assert not watched.beats()
    (tmp_path / "other").write_text("not the report")
    assert not watched.beats()


def test_a_bar_that_moves_is_a_sign_of_life_and_one_that_stands_still_is_none(
    tmp_path: Path,
) -> None:
    watched = Watched(tmp_path, heartbeat_s=0.1)

    def beats_after(text: str) -> bool:
        with watched.log.open("a") as log:
            log.write(text)
        return watched.beats()

    assert beats_after("\r 10%|#         | 1/10 [00:01<00:09]")
    assert not beats_after("\r 10%|#         | 1/10 [00:02<00:18]")
    assert beats_after("\r 20%|##        | 2/10 [00:03<00:12]")
    assert not beats_after("a log may say anything for hours\n")


def test_a_sign_of_life_is_looked_for_four_times_in_the_time_of_one(tmp_path: Path) -> None:
    """From the beginning: who reports in time must be known to."""
    watched = Watched(tmp_path, heartbeat_s=0.1)
    for _ in range(5):
        assert watched.watch.look() <= 0.025
        time.sleep(0.025)


def heartbeat(desk: Desk, seconds: float) -> dict[str, Any]:
    return {"report": str(desk.report()), "heartbeat_s": seconds}


def test_a_running_job_is_known_by_its_signs_of_life(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        script = f"echo >> report; {WAIT}; echo >> report; {WAIT.replace('go', 'gone')}"
        await desk.start("sh", "-c", script, **heartbeat(desk, 0.2))
        running = await desk.running()
        await until(lambda: desk.supervisor.last_beat(1), "a sign of life")
        first = desk.supervisor.last_beat(1)
        assert first is not None
        # The times of files are kept in coarser steps than the clock's.
        assert running.mono - 0.001 <= first <= time.monotonic() + 0.001
        (tmp_path / "go").touch()
        await until(lambda: (desk.supervisor.last_beat(1) or 0) > first, "another one")
        (tmp_path / "gone").touch()
        await desk.exited()
        assert desk.supervisor.last_beat(1) is None, "nobody knows that job any more"

    with_desk(tmp_path, deed)


def test_who_owes_no_sign_of_life_is_not_watched_for_it(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        exit = await desk.sh("echo >> report", report=str(desk.report()))
        assert exit.exit_code == 0
        assert not (desk.attempt_dir() / record.BEAT).exists()

    with_desk(tmp_path, deed)


def test_signs_of_life_that_cannot_be_noted_keep_a_job_from_starting(tmp_path: Path) -> None:
    """It would be ended for its silence."""

    async def deed(desk: Desk) -> None:
        (desk.attempt_dir() / record.BEAT).mkdir(parents=True)
        exit = await desk.run("touch", "ran", **heartbeat(desk, 5.0))
        assert (exit.exit_code, exit.stage) == (125, "preparing to watch over it")
        assert exit.error == "is a directory"
        assert not (tmp_path / "ran").exists()

    with_desk(tmp_path, deed)


# ─── what it says in the end ─────────────────────────────────────────────────────────────────────


def test_the_end_of_its_output_is_kept_where_it_did_not_succeed(tmp_path: Path) -> None:
    failed = run(tmp_path, "sh", "-c", "echo one; echo two >&2; exit 3")
    assert failed.last_output == "one\ntwo\n"
    killed = run(tmp_path, "sh", "-c", "echo three; kill -9 $$")
    assert killed.last_output == "three\n", "and nothing of an attempt before it"


def test_what_others_wrote_before_the_job_was_there_is_not_its_own(tmp_path: Path) -> None:
    def write(log: Path) -> None:
        log.write_text("theirs\n\r 50%|#####     | 5/10 [00:01<00:01]\n")

    watched = Watched(tmp_path, None, before=write)
    with watched.log.open("a") as log:
        log.write("its own\n")
    assert watched.watch.findings(succeeded=False)["last_output"] == "its own\n"
    assert last_progress(watched.folder) is None


def test_nothing_is_kept_of_a_success(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "echo secret; exit 0", report=str(desk.report()))
        assert await desk.exited() is not None
        found = desk.record(known)
        assert found is not None
        assert not {"last_output", "told_out_of_memory"} & set(found)

    with_desk(tmp_path, deed)


@pytest.mark.parametrize(
    ("script", "is_silent"),
    [
        ("true", True),
        ('echo x >> "$R"', False),
        ('rm "$R"; echo x > "$R"', False),  # not the file that it got
        ('mv "$R" aside; touch "$R"', False),
        ('rm "$R"', False),
        (r"printf '%s\r' ' 50%|#####     | 5/10 [00:01<00:01,  5.00it/s]' >&2", False),
    ],
)
def test_that_nothing_was_reported_is_said_only_where_that_is_certain(
    tmp_path: Path, script: str, is_silent: bool
) -> None:
    async def deed(desk: Desk) -> None:
        script_in_place = script.replace("$R", str(desk.report()))
        known = await desk.start(
            "sh", "-c", script_in_place, report=str(desk.report()), cwd=str(tmp_path)
        )
        exit = await desk.exited()
        found = desk.record(known)
        assert exit is not None
        assert found is not None
        assert (exit.nothing_reported, found["nothing_reported"]) == (is_silent, is_silent)

    with_desk(tmp_path, deed)


def test_errors_that_have_a_file_of_their_own_are_what_is_kept(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    errors.write_text("of somebody before\n")
    exit = run(tmp_path, "sh", "-c", "echo out; echo why >&2; exit 1", stderr=str(errors))
    assert exit.last_output == "why\n"


def test_of_much_output_the_last_is_kept(tmp_path: Path) -> None:
    exit = run(tmp_path, "sh", "-c", "seq 100000; exit 1")
    assert exit.last_output is not None
    assert len(exit.last_output) == LAST_OUTPUT_BYTES
    assert exit.last_output.endswith("\n99999\n100000\n")


def test_output_that_is_no_text_is_kept_as_far_as_it_is_one(tmp_path: Path) -> None:
    exit = run(tmp_path, "sh", "-c", r"printf 'a\377\000b\303'; exit 1")
    assert exit.last_output == "a�\0b�"


def test_a_job_tells_its_runner_what_it_lacked(tmp_path: Path) -> None:
    said = line(message="no room for 20 GiB").decode().strip()
    report = str(tmp_path / "report")
    exit = run(tmp_path, "sh", "-c", f"echo '{said}' >> report; exit 1", report=report)
    assert exit.told_out_of_memory == "no room for 20 GiB"


@pytest.mark.parametrize(
    "script",
    [
        "yes rubbish | head -c 30000000 >> report",
        "rm report; ln -s /dev/zero report",
        "rm report; mkfifo report",
        "rm report; mkdir report",
        "chmod 0 report; truncate -s 1T report",
    ],
)
def test_whatever_it_does_to_its_report_its_end_is_told(tmp_path: Path, script: str) -> None:
    async def deed(desk: Desk) -> None:
        exit = await desk.sh(f"{script}; sleep 0.2; exit 7", **heartbeat(desk, 0.2))
        assert (exit.exit_code, exit.told_out_of_memory) == (7, None)

    with_desk(tmp_path, deed)


def test_a_report_that_is_no_file_of_its_own_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "report").symlink_to("precious")
    exit = run(tmp_path, "true", report=str(tmp_path / "report"))
    assert (exit.exit_code, exit.stage) == (125, "opening its report")
    assert exit.error == "too many levels of symbolic links"
    assert (tmp_path / "precious").read_text() == "kept"


# ─── what it left behind ─────────────────────────────────────────────────────────────────────────


def test_what_was_left_behind_is_named(tmp_path: Path) -> None:
    its_name = "/proc/$!/comm"  # a child is its parent's twin until it has become something else
    script = f"sleep 600 & until grep -q sleep {its_name}; do :; done; exit 0"
    exit = run(tmp_path, "sh", "-c", script)
    assert (exit.leftovers, exit.leftover_names) == (1, "sleep")


def test_of_many_left_behind_a_few_are_named(tmp_path: Path) -> None:
    script = "for n in 1 2 3 4 5 6 7; do sleep 600 & done; exit 0"
    exit = run(tmp_path, "sh", "-c", script)
    names = (exit.leftover_names or "").split(", ")
    assert exit.leftovers == 7
    assert (len(names), names[-1]) == (6, "…")


def test_who_leaves_nobody_behind_is_told_so(tmp_path: Path) -> None:
    exit = run(tmp_path, "sh", "-c", "sleep 0.05 & wait")
    assert (exit.leftovers, exit.leftover_names) == (0, None)


def test_the_end_of_the_main_process_is_told_while_others_live(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        script = "sh -c 'trap \"\" TERM; echo $$ > pid; exec sleep 600' & "
        known = await desk.start("sh", "-c", f"{script} {WAIT.replace('go', 'pid')}", grace_s=600.0)
        running = await desk.running()
        ended = await desk.main_ended()
        assert ended.left == 1
        assert running.mono <= ended.mono <= time.monotonic()
        folder = str(desk.attempt_dir())
        await until(lambda: record.main_ended(folder, known.nonce), "that to be noted")
        left, at = record.main_ended(folder, known.nonce) or (0, 0.0)
        assert left == 1
        assert at == pytest.approx(ended.mono, abs=0.001)
        assert record.main_process(folder, known.nonce) == (running.pid, running.pid_start)
        since = record.running_since(folder, known.nonce)
        assert since == pytest.approx(running.mono, abs=0.001)
        desk.supervisor.signal(1, 9)
        exit = await desk.exited()
        assert exit is not None
        assert (exit.exit_code, exit.leftovers) == (0, 1)

    with_desk(tmp_path, deed)
