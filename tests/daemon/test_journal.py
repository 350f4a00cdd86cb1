"""What the daemon logs stands in systemd's journal with a field for each thing that is known."""

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.model import Exit, Outcome
from gpuq.daemon.store import Store
from gpuq.daemon.store.events import record_event
from gpuq.daemon.story import Story
from gpuq.daemon.systemd.journal import MOST_BYTES, Journal, is_connected
from gpuq.daemon.watchers import Watchers
from tests import stored
from tests.conftest import Daemon, until
from tests.systemd_side import Ear

Line = dict[str, list[str]]


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    with Ear(tmp_path / "journal") as ear:
        yield ear


def parse(datagram: bytes) -> Line:
    """As systemd's journal takes it (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    fields: Line = {}
    while datagram:
        head, _, datagram = datagram.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + length], datagram[8 + length :]
            assert datagram[:1] == b"\n"
            datagram = datagram[1:]
        assert name.replace(b"_", b"").isalnum(), name
        assert name.isupper(), name
        assert not name.startswith(b"_"), name
        assert len(name) <= 64, name
        fields.setdefault(name.decode(), []).append(value.decode())
    return fields


def lines(ear: Ear) -> list[Line]:
    return [parse(one) for one in ear.heard()]


def refused(level: str, sentence: str, fields: Any) -> None:
    raise AssertionError(f"the journal did not take {sentence}")


# ─── lines ───────────────────────────────────────────────────────────────────────────────────────


def test_a_line_has_its_fields(ear: Ear) -> None:
    journal = Journal(refused, ear.address)
    fields = {"job": 12, "gpu": ["GPU-a", 0], "is_back": True, "none": None, "odd-name é": "x=y"}
    journal.tell("warning", "job 12 is back", fields)
    assert lines(ear) == [
        {
            "MESSAGE": ["job 12 is back"],
            "PRIORITY": ["4"],
            "SYSLOG_IDENTIFIER": ["gpuqd"],
            "GPUQ_JOB": ["12"],
            "GPUQ_GPU": ["GPU-a", "0"],
            "GPUQ_IS_BACK": ["true"],
            "GPUQ_ODD_NAME__": ["x=y"],
        }
    ]


def test_nothing_in_a_value_makes_a_field_of_its_own(ear: Ear) -> None:
    journal = Journal(refused, ear.address)
    journal.tell("info", "one\nGPUQ_JOB=1", {"why": "two\n_UID=0\n", "of": "\udcff", "n" * 99: ""})
    (line,) = lines(ear)
    assert line.pop("GPUQ_" + "N" * 59) == [""]
    assert line == {
        "MESSAGE": ["one\nGPUQ_JOB=1"],
        "PRIORITY": ["6"],
        "SYSLOG_IDENTIFIER": ["gpuqd"],
        "GPUQ_WHY": ["two\n_UID=0\n"],
        "GPUQ_OF": ["\\udcff"],
    }


def test_what_is_too_long_is_cut(ear: Ear) -> None:
    Journal(refused, ear.address).tell("info", "x" * 10**7, {"a": "é" * 10**6, "b": 1})
    (datagram,) = ear.heard()
    assert len(datagram) < 3 * MOST_BYTES
    assert datagram.endswith(b"\nGPUQ_B=1\n")


def test_a_journal_that_is_gone_or_refuses_leaves_the_line_to_stderr(tmp_path: Path) -> None:
    told: list[Any] = []

    def otherwise(*line: Any) -> None:
        told.append(line)

    Journal(otherwise, str(tmp_path / "gone")).tell("error", "no", {"job": 1})
    with Ear(tmp_path / "small") as ear:
        journal = Journal(otherwise, ear.address)
        journal.tell("info", "long", {str(n): "x" * MOST_BYTES for n in range(60)})
    assert [line[:2] for line in told] == [("error", "no"), ("info", "long")]
    assert told[0][2] == {"job": 1}


def test_a_journal_that_does_not_read_costs_lines_and_says_so(ear: Ear) -> None:
    journal = Journal(refused, ear.address)
    while not journal._lost:
        journal.tell("info", "one", {})
    for _ in range(1000):  # each of which would wait, if one after that first did
        journal.tell("info", "one more", {})
    assert len(lines(ear)) > 0
    journal.tell("info", "the next", {})
    after, told = lines(ear)
    assert after["MESSAGE"] == ["the next"]
    assert told["GPUQ_LOST"] == ["1001"]
    assert told["MESSAGE"][0].startswith("lines are missing here")


def test_only_a_descriptor_that_leads_there_is_connected(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as a, (tmp_path / "b").open("w") as b:
        found = os.fstat(a.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_connected(environ, a.fileno())
        assert not is_connected(environ, b.fileno())
        assert not is_connected({}, a.fileno())
        number = b.fileno()
    assert not is_connected(environ, number), "it is closed"


SAYS = """
import os, sys
import structlog
from gpuq.daemon import own_log
from gpuq.daemon.systemd import journal
journal.Journal.__init__.__defaults__ = (sys.argv[1],)
found = os.fstat(2)
own_log.set_up({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
log = structlog.get_logger()
log.info("serving", pid=7, socket="/run/x")
log.warning("a GPU is set aside", gpu="GPU-a", why="it failed")
log.debug("by the way", by={"a": 1})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("request failed", user="ann")
"""


def said_by(program: str, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return ran.stderr


def test_each_line_of_the_log_is_a_sentence_with_fields(ear: Ear) -> None:
    assert said_by(SAYS, ear.address) == ""
    serving, aside, way, failed = lines(ear)
    assert serving["MESSAGE"] == ["serving (pid 7, socket /run/x)"]
    assert (serving["PRIORITY"], serving["GPUQ_PID"]) == (["6"], ["7"])
    assert aside["MESSAGE"] == ["a GPU is set aside: it failed (gpu GPU-a)"]
    assert (aside["PRIORITY"], aside["GPUQ_GPU"]) == (["4"], ["GPU-a"])
    assert (way["PRIORITY"], way["GPUQ_BY"]) == (["7"], ['{"a": 1}'])
    assert failed["PRIORITY"] == ["3"]
    assert failed["MESSAGE"][0].startswith("request failed (user ann)\nTraceback")
    assert failed["GPUQ_EXCEPTION"][0].endswith("ZeroDivisionError: division by zero")


def test_without_a_journal_the_same_lines_are_json_on_stderr(tmp_path: Path) -> None:
    said = said_by(SAYS, str(tmp_path / "gone")).splitlines()
    assert len(said) == 4
    assert '"event": "serving (pid 7, socket /run/x)"' in said[0]
    assert '"level": "warning"' in said[1]


# ─── the story of a job ──────────────────────────────────────────────────────────────────────────


TEN = Elements(indices=(range(10),))


def story_of(store: Store, ear: Ear) -> Story:
    return Story(store.told, Watchers(), Journal(refused, ear.address))


def test_what_befell_a_run_of_jobs_is_told_once(ear: Ear) -> None:
    store = Store(":memory:")
    story = story_of(store, ear)
    last = stored.submit(store, elements=TEN)[-1]
    store.wished.stop(last - 1, last, grace_s=1.0, actor="alice", now=stored.NOW)
    store.happened.cancel(last - 1, last=last, actor="alice", now=stored.NOW)
    assert story.tell()
    assert [line["MESSAGE"][0] for line in lines(ear)] == [
        "jobs 1 to 10 were queued by alice",
        "each of jobs 9 to 10 is to end, alice wants",
        "each of jobs 9 to 10 of alice has ended, cancelled, alice wants: "
        "cancelled by alice while it was queued",
    ]


def test_the_journal_tells_the_story_of_a_job(ear: Ear) -> None:
    store = stored.with_gpus(Store(":memory:"))
    stored.submit(store, 3)
    story = story_of(store, ear)
    assert not story.tell(), "what was before is not told again"
    job = stored.submit_one(store, by=stored.BOB)
    stored.start(store, job, stored.lease(job))
    stored.run(store, job)
    stored.fail(store, job)
    store.happened.undelay(job, now=stored.NOW)
    stored.start(store, job, attempt=2)
    lost = Exit(lost="its runner died")
    stored.end(store, job, attempt=2, exit=lost, outcome=Outcome.LOST, reason="its runner died")
    stored.submit(store, 3)
    while story.tell():
        pass
    told = lines(ear)
    assert [line["MESSAGE"][0] for line in told] == [
        "job 4 was queued by bob",
        "job 4 is being started",
        "job 4 runs",
        "job 4 has ended an attempt: exit code 3",
        "job 4 waits for its next attempt: attempt 2 of 3 in 60 s",
        "job 4 may be started again",
        "job 4 is being started, attempt 2",
        "job 4 of bob has ended, lost, attempt 2: its runner died",
        "jobs 5 to 7 were queued by alice",
    ]
    of_four = [line for line in told if line["GPUQ_JOB"] == ["4"]]
    assert len(of_four) == 8
    assert {line["GPUQ_USER"][0] for line in of_four} == {"bob"}
    running = told[2]
    assert (running["GPUQ_ATTEMPT"], running["GPUQ_GPU"]) == (["1"], ["GPU-0"])
    failed, last = told[3], told[7]
    assert (failed["GPUQ_OUTCOME"], failed["GPUQ_EXIT_CODE"]) == (["failed"], ["3"])
    assert (failed["PRIORITY"], last["PRIORITY"]) == (["6"], ["4"])
    store.close()


def test_the_last_that_happened_is_told_before_the_daemon_has_left(ear: Ear) -> None:
    store = Store(":memory:")

    async def live() -> None:
        telling = asyncio.ensure_future(story_of(store, ear).run())
        await asyncio.sleep(0)  # it waits for news, and none comes
        stored.submit_one(store)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)

    asyncio.run(live())
    assert [line["MESSAGE"] for line in lines(ear)] == [["job 1 was queued by alice"]]
    store.close()


def test_nothing_that_a_job_was_given_is_told(ear: Ear) -> None:
    store = Store(":memory:")
    story = story_of(store, ear)
    secret = (b"sh", b"-c", b"SECRET")
    job = stored.submit_one(store, argv=secret, changes={b"TOKEN": b"SECRET"}, name="SECRET")
    stored.start(store, job)
    stored.run(store, job)
    stored.end(store, job)
    while story.tell():
        pass
    told = ear.heard()
    assert len(told) == 4
    assert b"SECRET" not in b"".join(told)
    store.close()


def test_a_job_that_was_forgotten_meanwhile_is_told_all_the_same(ear: Ear) -> None:
    store = Store(":memory:")
    story = story_of(store, ear)
    with store.transaction():
        record_event(store.database, 1.0, "something_new", job=9)
    story.tell()
    (line,) = lines(ear)
    assert line["MESSAGE"] == ["job 9 something new"]
    assert "GPUQ_USER" not in line
    store.close()


# ─── a true daemon ───────────────────────────────────────────────────────────────────────────────

SERVES = """
import os, sys
from gpuq.daemon.systemd import journal
journal.Journal.__init__.__defaults__ = (sys.argv.pop(1),)
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
from gpuq.daemon.main import main
main()
"""


def start(daemon: Daemon, ear: Ear) -> None:
    command = [sys.executable, "-P", "-c", SERVES, ear.address, "--state-dir", str(daemon.state)]
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [*command, "--gpus", daemon.gpus],
            env=daemon.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    until(daemon._answers, "the daemon")


def test_a_daemon_tells_the_journal_of_itself_and_of_its_jobs(
    stopped_daemon: Daemon, ear: Ear
) -> None:
    start(stopped_daemon, ear)
    with stopped_daemon.client() as client:
        job = client.submit(["sh", "-c", "exit 3"], gpus=2)
        client.wait([job], timeout_s=30)
        assert stopped_daemon.stop() == 0
    told = lines(ear)
    sentences = [line["MESSAGE"][0] for line in told]
    assert any(sentence.startswith("serving (") for sentence in sentences)
    assert sentences[-1] == "left: it got SIGTERM"
    of_job = [line for line in told if line.get("GPUQ_JOB") == [str(job)]]
    moments = [line["GPUQ_MOMENT"][0] for line in of_job]
    assert moments[:3] == ["submitted", "starting", "running"]
    ended = of_job[moments.index("ended")]
    assert ended["MESSAGE"][0].endswith("has ended, failed: exit code 3")
    assert ended["GPUQ_GPU"][2:] == ["0", "1"], "by uuid and by index"
    assert len(ended["GPUQ_GPU"]) == 4
    assert own_lines(stopped_daemon) == [], "nothing is told twice"


def test_without_a_journal_a_job_leaves_no_line(daemon: Daemon) -> None:
    """Nothing cuts that log."""
    with daemon.client() as client:
        client.wait([client.submit(["true"], gpus=0)], timeout_s=30)
    before = own_lines(daemon)
    with daemon.client() as client:
        for _ in range(3):
            client.wait([client.submit(["true"], gpus=0)], timeout_s=30)
    assert own_lines(daemon) == before


def own_lines(daemon: Daemon) -> list[str]:
    """But for those of Python itself, which is asked to warn."""
    return [line for line in daemon.log.read_text().splitlines() if line.startswith("{")]
