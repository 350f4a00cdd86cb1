"""`gpuq metrics` and what `gpuq events` says of who and why."""

from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, event


def test_the_text_comes_out_as_the_daemon_gave_it(gpuq: Gpuq, fake: FakeDaemon) -> None:
    text = "# HELP gpuq_drained 1 while nothing is to be started.\ngpuq_drained 0.0\n"
    fake.answers["metrics"] = {"text": text}
    assert gpuq("metrics") == (0, text, "")
    assert gpuq("metrics", terminal=True).out == text


def told(gpuq: Gpuq, fake: FakeDaemon, **about: object) -> list[str]:
    """Its kind, job, attempt, GPU, actor and cause, as a pipe has them."""
    one = event(7, **about)  # type: ignore[arg-type]
    fake.answers["events"] = lambda asked: {"events": [] if asked["since"] else [one], "last": 7}
    return gpuq("events", "--since", "0").out.rstrip("\n").split("\t")[2:]


def test_the_cause_is_told_always_and_in_brackets_what_else_is_known(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    usual = {"kind": "starting", "actor": "gpuq", "cause": "its turn came, and there was room"}
    assert told(gpuq, fake, **usual, detail={"gpus": [0, 1]})[4:] == [
        "gpuq",
        "its turn came, and there was room (gpus=0,1)",
    ]
    assert told(gpuq, fake, **usual)[4:] == ["gpuq", "its turn came, and there was room"]
    ended = {"kind": "ended", "actor": "bob", "cause": "cancelled by bob"}
    assert told(gpuq, fake, **ended, detail={"outcome": "cancelled", "leftovers": 0})[4:] == [
        "bob",
        "cancelled by bob (outcome=cancelled)",
    ]


def test_figures_that_are_for_the_metrics_are_not_told_to_people(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    detail = {"pid": 12, "waited_s": 3.25, "gap_s": 0.004}
    running = {"kind": "running", "actor": "gpuq", "cause": "its command was started"}
    assert told(gpuq, fake, **running, detail=detail)[5] == "its command was started (pid=12)"


def test_an_event_of_a_daemon_that_knows_no_causes_is_shown_as_well(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    assert told(gpuq, fake, kind="pruned", cause=None, actor=None, job=None)[0] == "pruned"
