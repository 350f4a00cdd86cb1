"""What a runner leaves on disk is whole or counts as nothing, and there is room for it."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuq import wire_json
from gpuq.core.states import conclude, explain
from gpuq.daemon.attempt import record
from gpuq.daemon.store import Store
from gpuq.daemon.supervisor import Exited, Known, read_exit
from tests.builders import STEADY
from tests.desk import Desk, with_desk
from tests.disk import fill
from tests.stored import ended, row, start, submit_one

NONCE = "a1b2c3"


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """A runner ends, and its descriptors with it; this process has many tests after it."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for number in set(os.listdir("/proc/self/fd")) - before:
        with suppress(OSError):
            if re.search("/(began|record|beat)", os.readlink(f"/proc/self/fd/{number}")):
                os.close(int(number))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "attempt")


def began(folder: str) -> record.Began:
    return record.begin(folder, NONCE)


# ─── notes for a daemon that comes later ─────────────────────────────────────────────────────────


def test_what_was_noted_is_read_again(folder: str) -> None:
    assert not record.has_begun(folder, NONCE)
    notes = began(folder)
    assert record.has_begun(folder, NONCE)
    assert (record.main_process(folder, NONCE), record.main_ended(folder, NONCE)) == (None, None)
    record.note_main_process(notes, 4711, 99, 12.345)
    assert record.main_process(folder, NONCE) == (4711, 99)
    assert record.running_since(folder, NONCE) == 12.345
    assert record.main_ended(folder, NONCE) is None
    record.note_main_ended(notes, 3, 15.5)
    assert record.main_ended(folder, NONCE) == (3, 15.5)
    assert record.main_process(folder, NONCE) == (4711, 99)


def test_a_process_that_had_ended_at_once_is_noted_without_its_start(folder: str) -> None:
    record.note_main_process(began(folder), 4711, None, 12.0)
    assert record.main_process(folder, NONCE) == (4711, 0)


def test_notes_are_one_attempts_own(folder: str) -> None:
    record.note_main_process(began(folder), 4711, 99, 12.0)
    assert not record.has_begun(folder, "another")
    assert record.main_process(folder, "another") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4711 99 12.5",  # its newline is still to come
        "4711\n",
        "one two three\n",
        "0 99 1.0\n",
        "-4711 99 1.0\n",
        f"{2**31} 99 1.0\n",
        f"4711 {2**62} 1.0\n",
        "4711 -1 1.0\n",
        "\0" * 500 + "\n",
        "ended 3 15.5\n",
    ],
)
def test_notes_that_make_no_sense_name_no_process(folder: str, text: str) -> None:
    began(folder)
    (Path(folder) / f"began-{NONCE}").write_text(text)
    assert record.main_process(folder, NONCE) is None
    assert record.main_ended(folder, NONCE) is None


@pytest.mark.parametrize("moment", ["", "soon", "nan", "inf", "-1", "1e400", f"{2**41}"])
def test_a_moment_that_is_none_counts_as_unknown(folder: str, moment: str) -> None:
    began(folder)
    (Path(folder) / f"began-{NONCE}").write_text(f"4711 99 {moment}\nended 3 {moment}\n")
    assert record.main_process(folder, NONCE) == (4711, 99)
    assert record.running_since(folder, NONCE) is None
    assert record.main_ended(folder, NONCE) is None


@STEADY
@given(st.binary(max_size=300))
def test_whatever_stands_in_the_notes_the_reader_survives_it(rubbish: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        began(folder)
        (Path(folder) / f"began-{NONCE}").write_bytes(b"4711 99 1.0\n" + rubbish)
        assert record.main_process(folder, NONCE) == (4711, 99)
        found = record.main_ended(folder, NONCE)
        assert found is None or 0 <= found[0] <= 2**31
        (Path(folder) / f"began-{NONCE}").write_bytes(rubbish)
        main, since = record.main_process(folder, NONCE), record.running_since(folder, NONCE)
        assert main is None or 0 < main[0] < 2**31
        assert since is None or 0 <= since < 2**40


# ─── signs of life ───────────────────────────────────────────────────────────────────────────────


def test_the_last_sign_of_life_is_what_counts(folder: str) -> None:
    assert record.last_beat(folder) is None
    began(folder)
    beat = record.open_beat(folder)
    assert record.last_beat(folder) is None
    for mono in (123456.789, 8.5):  # the second is the shorter text
        record.note_beat(beat, mono)
        assert record.last_beat(folder) == mono


@pytest.mark.parametrize("text", ["", "\n", "now\n", "-1\n", "nan\n", "\udcff\n", "1" * 200])
def test_a_sign_of_life_that_makes_no_sense_is_none(folder: str, text: str) -> None:
    began(folder)
    (Path(folder) / record.BEAT).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert record.last_beat(folder) is None


# ─── the record ──────────────────────────────────────────────────────────────────────────────────

SAID = {"nonce": NONCE, "exit_code": 3, "signal": None, "ended_at": 1.5}


def test_a_record_is_there_whole_or_not_at_all(folder: str) -> None:
    notes = began(folder)
    assert record.read(folder, NONCE) is None, "the room that is kept for it is none"
    assert record.write(folder, notes, SAID)
    assert record.read(folder, NONCE) == SAID
    assert sorted(os.listdir(folder)) == [f"began-{NONCE}", "record"]
    size = os.path.getsize(f"{folder}/record")
    assert size == len(wire_json.dumps(SAID)), "none of the room is left in it"


def test_a_record_is_one_attempts_own(folder: str) -> None:
    record.write(folder, began(folder), SAID)
    assert record.read(folder, "another") is None


def test_a_place_without_room_for_a_record_is_no_place_to_begin(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    with pytest.raises(OSError, match="No space left"):
        began(str(small_disk / "attempt"))
    assert not record.has_begun(str(small_disk / "attempt"), NONCE)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["\ud800", "half \udfff", 9, 0, 2**63, [], {}])
)
FIELDS = [
    *("exit_code", "signal", "stage", "error", "lost", "ended_at", "user_s", "system_s"),
    *("peak_rss_bytes", "leftovers", "leftover_names", "last_output", "told_out_of_memory"),
    *("oom_kills", "bound_hits", "memory_peak_bytes", "log_dropped_bytes"),
]


@STEADY
@given(
    st.dictionaries(st.sampled_from(FIELDS), VALUES),
    st.sampled_from([{}, {"exit_code": 1}, {"exit_code": None, "signal": 9}]),
)
@example({"stage": "executing x", "error": "no such file"}, {"exit_code": None, "signal": 9})
@example({"stage": "executing x", "error": "half a \ud800"}, {"exit_code": 1})
@example({"leftovers": 1, "leftover_names": "\udfff"}, {"exit_code": 1})
@example({"told_out_of_memory": "\ud800"}, {"exit_code": 1})
@example({"leftovers": 2**63}, {"exit_code": 1})
def test_what_stands_in_a_record_can_be_told_and_stored_or_counts_as_nothing(
    written: dict[str, Any], sane: dict[str, Any]
) -> None:
    """A job that runs as the daemon's own user can write there. What the daemon could not store would
    end it, at every start anew."""
    with tempfile.TemporaryDirectory() as folder, closing(Store(":memory:")) as store:
        os.makedirs(folder, exist_ok=True)
        said = json.dumps({"nonce": NONCE} | written | sane)
        (Path(folder) / record.RECORD).write_text(said)
        told = record.read(folder, NONCE)
        if told is None:
            return
        job = submit_one(store)
        start(store, job)
        exit = read_exit(told)
        outcome = conclude(exit)
        done = ended(job, exit, outcome, reason=explain(exit, outcome))
        store.happened.end(done, now=1.0)
        assert row(store, job)["state"] == "ended"


def test_a_plain_record_is_not_refused_by_all_this(folder: str) -> None:
    record.write(folder, began(folder), SAID | {"stage": "executing größe 🙂", "error": "no"})
    assert record.read(folder, NONCE) is not None


# ─── written by a real runner ────────────────────────────────────────────────────────────────────


def test_the_longest_of_records_can_be_read_again(tmp_path: Path) -> None:
    """Told to a daemon that was away: the words of a stage, and all that a job said in the end."""

    async def deed(desk: Desk) -> None:
        unnamed = await desk.start("ö🙂\x01" * 30_000, job=1)
        assert (await desk.exited(1)) is not None
        script = r"i=0; while [ $i -lt 2000 ]; do printf '\001\377\200\000\010'; i=$((i+1)); done"
        loud = await desk.start("sh", "-c", f"{script}; exit 3", job=2)
        assert (await desk.exited(2)) is not None
        told: list[tuple[Known, int]] = [(unnamed, 126), (loud, 3)]
        for known, code in told:
            found = desk.record(known)
            assert found is not None
            assert found["exit_code"] == code
            size = (desk.attempt_dir(known.job) / record.RECORD).stat().st_size
            assert size <= record.LONGEST_RECORD

    with_desk(tmp_path, deed)


def test_a_job_that_fills_the_disk_does_not_lose_its_own_end(small_disk: Path) -> None:
    """Nobody listens meanwhile: all that is known of its end is on that disk."""

    async def deed(desk: Desk) -> None:
        script = "cat /dev/zero > ballast; printf more > other && exit 1; exit 42"
        known = await desk.start("sh", "-c", script)
        exit = await desk.exited()
        assert exit is not None
        found = desk.record(known)
        assert found is not None
        assert read_exit(found) == exit
        assert exit.exit_code == 42

    with_desk(small_disk, deed)


def test_a_job_for_which_there_is_no_room_does_not_begin_and_goes_back(small_disk: Path) -> None:
    async def deed(desk: Desk) -> None:
        fill(small_disk / "ballast")
        await desk.start("touch", "ran")
        assert await desk.exited() is None
        (told,) = [news for news in desk.news if isinstance(news, Exited)]
        assert told.cause == "it could not begin: making its directories: no space left on device"
        assert not (small_disk / "ran").exists()
        assert not list(desk.attempt_dir().glob("began*"))

    with_desk(small_disk, deed)


def test_the_room_of_one_runner_is_not_given_back_by_another(tmp_path: Path) -> None:
    """One that was to make ready the same attempt for an earlier daemon may hear late that it is not
    to begin."""
    folder = str(tmp_path / "7.1")
    earlier, later = record.take_room(folder, "a"), record.take_room(folder, "b")
    began = record.begin(folder, "b", later)
    record.give_room_back(folder, "a", earlier)
    told = {"nonce": "b", "exit_code": 0, "signal": None}
    assert record.write(folder, began, told)
    record.close(began)
    assert record.read(folder, "b") == told
    record.give_room_back(folder, "a", os.open(os.devnull, os.O_RDONLY))  # which is gone by now
