"""`gpuq gpus drain`, `gpus resume`, `why gpu:3`, `doctor --deep`, as people and scripts see them."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli import gpu_tests
from gpuq.daemon.store import Store
from gpuq.errors import NothingMatched, NotPermitted
from gpuq.paths import DATABASE_NAME
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said, gpu, page, process, simulated

GOOD = {
    "verdict": "good",
    "by": "torch 2.13.0",
    "tflops": 51.27,
    "memory_gb_s": 2410.0,
    "memory_bytes": 125 * 2**30,
    "seconds": 4.2,
}
BAD = GOOD | {"verdict": "bad", "trouble": "3 words of its memory came back changed"}
PONG = {"version": "0.1.0", "pid": 4711, "state_dir": "/tmp", "mode": "user"}


def done(index: int, what: str, **changes: Any) -> Said:
    plain = {"index": index, "uuid": f"GPU-{index}", "simulated": False, "done": what}
    return plain | {"reason": None, "jobs": [], "tested_before": None} | changes


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sleeps between two looks at a test."""
    monkeypatch.setattr(gpu_tests.time, "sleep", lambda seconds: None)


# ─── drain and resume ────────────────────────────────────────────────────────────────────────────


def test_a_gpu_is_drained_for_a_reason(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["drain_gpus"] = {
        "gpus": [
            done(3, "drained", reason="new fan", jobs=[181]),
            done(4, "drained", reason="new fan", jobs=[182, 183]),
            done(5, "drained", reason="new fan"),
        ]
    }
    ran = gpuq("gpus", "drain", "3-5", "-m", "new fan", terminal=True)
    assert ran.out.splitlines() == [
        "GPU 3 is drained: new fan; 1 job on it (181) goes on",
        "GPU 4 is drained: new fan; 2 jobs on it (182-183) go on",
        "GPU 5 is drained: new fan",
    ]
    (asked,) = fake.requests("drain_gpus")
    assert (asked["refs"], asked["reason"]) == (["3-5"], "new fan")
    assert gpuq("gpus", "drain", "3-5").out.splitlines()[0] == "3\tGPU-3\tdrained"


def test_who_may_not_and_what_is_not_there_is_said(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["drain_gpus"] = NotPermitted("only an admin may drain a GPU. Nothing was done.")
    assert gpuq("gpus", "drain", "3").code == 5
    fake.answers["gpus"] = page()
    fake.answers["resume_gpus"] = NothingMatched("there is no GPU 9: this machine has 0-3")
    ran = gpuq("gpus", "resume", "9")
    assert (ran.code, ran.err) == (3, "gpuq: there is no GPU 9: this machine has 0-3\n")
    assert gpuq("gpus", "drain").code == 2
    assert gpuq("gpus", "remove", "3").code == 2


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"what": "resumed"}, "GPU 3 is given out again"),
        ({"what": "readmitted"}, "GPU 3 is given out again, untested"),
        ({"what": "nothing"}, "GPU 3 was neither drained nor set aside"),
        (
            {"what": "waits", "reason": "job 181 has it"},
            "GPU 3 is given out again after a test, and cannot be tested now: job 181 has it",
        ),
    ],
)
def test_a_gpu_is_resumed(gpuq: Gpuq, fake: FakeDaemon, what: Said, sentence: str) -> None:
    fake.answers |= {"gpus": page(gpus=[gpu(3)]), "resume_gpus": {"gpus": [done(3, **what)]}}
    ran = gpuq("gpus", "resume", "3", "--untested", terminal=True)
    assert (ran.code, ran.out) == (0, f"{sentence}\n")
    assert fake.requests("resume_gpus")[0]["untested"] is True


def looks(*views: Said) -> Any:
    """Answers to `gpus`, one after the other; the last one stays."""
    left = list(views)

    def answer(request: Said) -> Said:
        return page(gpus=[left.pop(0) if len(left) > 1 else left[0]])

    return answer


def test_who_resumes_a_gpu_that_was_set_aside_hears_how_its_test_went(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    testing = gpu(3, state="quarantined", under_test="resumed by ann", tested_at=7.0)
    fake.answers |= {
        "resume_gpus": {"gpus": [done(3, "testing", reason="XID 79")]},
        "gpus": looks(testing, testing, gpu(3, tested_at=8.0, test=GOOD)),
    }
    ran = gpuq("gpus", "resume", "3", terminal=True)
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "GPU 3 is tested first; it was set aside: XID 79",
            "GPU 3: good: 51.3 TFLOP/s, 2410 GB/s, 125G of its memory (torch 2.13.0, 4.2s). "
            "It is given out",
        ],
    )
    fake.answers["gpus"] = looks(
        testing, testing, gpu(3, tested_at=8.0, test=BAD, quarantine="XID 79")
    )
    ran = gpuq("gpus", "resume", "3", terminal=True)
    assert ran.code == 1
    assert ran.out.splitlines()[1] == (
        "GPU 3: bad, 3 words of its memory came back changed: 51.3 TFLOP/s, 2410 GB/s, 125G of its "
        "memory (torch 2.13.0, 4.2s). It is set aside. See: gpuq why gpu:3. To use it all the same: "
        "gpuq gpus resume 3 --untested"
    )


def test_a_test_that_is_lost_with_its_daemon_is_not_waited_for(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers |= {
        "resume_gpus": {"gpus": [done(3, "testing", reason="XID 79")]},
        "gpus": looks(gpu(3, tested_at=7.0), gpu(3, tested_at=7.0)),
    }
    ran = gpuq("gpus", "resume", "3")
    assert ran.code == 1
    assert ran.err == "gpuq: the test of GPU-3: it was lost: the daemon was restarted meanwhile\n"


# ─── the list ────────────────────────────────────────────────────────────────────────────────────


def test_the_list_says_why_a_gpu_is_given_to_nobody(gpuq: Gpuq, fake: FakeDaemon) -> None:
    desktop = process(900, command="Xorg", ignored=True)
    gpus = [
        gpu(0, state="drained", reason="drained by dan: riser swap", jobs=[181], exclusive=True),
        gpu(1, state="quarantined", reason="set aside: XID 79"),
        gpu(2, state="free", processes=[desktop]),
        gpu(3, state="leased", jobs=[7], exclusive=True, processes=[desktop]),
    ]
    fake.answers |= {"gpus": page(gpus=gpus), "status": page()}
    lines = gpuq("gpus", terminal=True).out.splitlines()
    assert lines[1].endswith("181, drained by dan: riser swap")
    assert lines[2].endswith("set aside: XID 79")
    assert lines[3].endswith("free")
    assert lines[4].endswith("  7"), "a desktop is nobody's work"


def test_processes_say_what_they_run_in_and_whether_they_count(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    on_it = [
        process(900, command="Xorg", ignored=True),
        process(901, unit="docker 3f2a9c1b7d44"),
    ]
    fake.answers |= {"gpus": page(gpus=[gpu(0, processes=on_it)]), "status": page()}
    lines = gpuq("gpus", "--procs", terminal=True).out.splitlines()
    assert lines[1].split() == ["0", "900", "carol", "40G", "ignored", "Xorg"]
    assert "outside gpuq  docker 3f2a9c1b7d44  python" in lines[2]


# ─── why ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("word", ["gpu:3", "GPU-8f3a", "MIG-8f3a", "gpu:0-3"])
def test_why_tells_all_about_a_gpu(gpuq: Gpuq, fake: FakeDaemon, word: str) -> None:
    fake.answers["why_gpu"] = {"sentences": ["GPU 3 is free.", "  evil \x1b[2J"], "gpu": "GPU-3"}
    ran = gpuq("why", word)
    assert ran.out.splitlines()[0] == "GPU 3 is free."
    assert "\x1b" not in ran.out
    assert fake.requests("why_gpu")[0]["ref"] == word


def test_only_a_process_is_watched(gpuq: Gpuq, fake: FakeDaemon) -> None:
    ran = gpuq("why", "gpu:3", "--watch", "5s")
    assert (ran.code, fake.asked) == (2, [])


# ─── doctor ──────────────────────────────────────────────────────────────────────────────────────


def test_doctor_tests_what_is_idle_and_says_why_the_rest_is_not(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    Store(tmp_path / DATABASE_NAME).close()
    both = [gpu(0, tested_at=8.0, test=GOOD), simulated(2, tested_at=8.0, test={"verdict": "good"})]
    fake.answers |= {
        "ping": PONG | {"state_dir": str(tmp_path)},
        "gpus": page(gpus=both),
        "test_gpus": {
            "gpus": [
                done(0, "testing", tested_before=7.0),
                done(1, "busy", reason="job 181 has it"),
                done(2, "testing"),
            ]
        },
    }
    ran = gpuq("doctor", "--deep", terminal=True)
    assert ran.code == 0
    assert ran.out.splitlines()[-3:] == [
        "GPU 1: not tested: job 181 has it",
        "GPU 0: good: 51.3 TFLOP/s, 2410 GB/s, 125G of its memory (torch 2.13.0, 4.2s). "
        "It is given out",
        "GPU 2: good. It is given out",
    ]
    assert ran.err == "gpuq: testing 2 GPUs, which takes some seconds\n"
    lines = gpuq("doctor", "--deep").out.splitlines()
    assert lines[-3:] == [
        "1\tGPU-1\treal\tuntested\t\t\t\tjob 181 has it",
        "0\tGPU-0\treal\tgood\t51.27\t2410.0\t4.2\t",
        "2\tGPU-2\tsimulated\tgood\t\t\t\t",
    ]
    tests = json.loads(gpuq("doctor", "--deep", "--json").out)["tests"]
    assert [(test["index"], test["verdict"]) for test in tests] == [
        (1, "untested"),
        (0, "good"),
        (2, "good"),
    ]


def test_doctor_fails_where_a_test_is_bad(gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path) -> None:
    Store(tmp_path / DATABASE_NAME).close()
    ill = gpu(0, tested_at=8.0, test=BAD, quarantine="its test failed")
    fake.answers |= {
        "ping": PONG | {"state_dir": str(tmp_path)},
        "gpus": page(gpus=[ill]),
        "test_gpus": {"gpus": [done(0, "testing")]},
    }
    assert gpuq("doctor", "--deep").code == 1
    assert gpuq("doctor").code == 0, "a GPU that is set aside is a warning"


def test_without_a_daemon_nothing_is_tested(gpuq: Gpuq, tmp_path: Path) -> None:
    ran = gpuq("--socket", str(tmp_path / "nobody"), "doctor", "--deep", "--json")
    assert ran.code == 1
    told = json.loads(ran.out)
    assert told["tests"] == []
    assert any("no daemon answers" in finding["what"] for finding in told["findings"])


def test_doctor_names_gpus_that_somebody_should_see_to(gpuq: Gpuq, fake: FakeDaemon) -> None:
    gpus = [
        gpu(0, warnings=["persistence mode is off"]),
        gpu(1, state="drained", reason="drained by dan: riser swap"),
        gpu(2, state="quarantined", reason="set aside: XID 79"),
        gpu(
            3, state="foreign", reason="held", locked_by="held by another gpuq daemon (pid 7, bob)"
        ),
    ]
    answer = page(gpus=gpus) | {"gpu_origin": "--gpus"}
    fake.answers |= {"ping": PONG, "gpus": answer}
    lines = gpuq("doctor", terminal=True).out.splitlines()
    assert "ok       4 GPUs by sim:4x24G (from --gpus)" in lines
    found = [line.removeprefix("warning  ") for line in lines if ": " in line and "GPU " in line]
    assert [line for line in found if line.startswith("GPU")] == [
        "GPU 0 warns: persistence mode is off. See: gpuq why gpu:0",
        "GPU 1: drained by dan: riser swap. End it: gpuq gpus resume 1",
        "GPU 2: set aside: XID 79. See: gpuq why gpu:2",
        "GPU 3: held by another gpuq daemon (pid 7, bob). Each GPU serves one daemon at a time",
    ]
