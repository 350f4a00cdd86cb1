"""Jobs that ask the same are told once, and how often; an older daemon is told each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpuq import protocol
from gpuq.errors import UsageError
from gpuq.submitting import Submitting

Said = dict[str, Any]
TRUE = {"argv": ["true"], "gpus": 1}
NEWER = UsageError(f"this daemon (gpuq 0.0.9) {protocol.UNKNOWN} 'submit_alike'; a newer client …")


class Daemon:
    """Hears requests as they come over the wire, and knows some of them."""

    def __init__(self, *known: str, trouble: UsageError = NEWER) -> None:
        self.heard: list[tuple[str, Said]] = []
        self._known = known or ("submit", "submit_alike")
        self._trouble = trouble

    def call(self, do: str, **request: Any) -> Said:
        self.heard.append((do, json.loads(json.dumps(request))))
        if do not in self._known:
            raise self._trouble
        known = "environment" in request or len(self.heard) > 2
        return {"first": 1, "count": 9} if known else {"wanted": "environment"}


def told(jobs: Sequence[Any], daemon: Daemon | None = None) -> list[tuple[list[str], int | None]]:
    """Each entry that the last request had, by its words, and how many times."""
    daemon = daemon or Daemon()
    Submitting(daemon.call, lambda line: None).submit(jobs, None, None)
    return [(job["argv"], job.get("times")) for job in daemon.heard[-1][1]["jobs"]]


def test_neighbours_that_ask_the_same_are_told_once() -> None:
    jobs = [TRUE, TRUE, dict(TRUE), {"argv": ["false"]}, TRUE]
    assert told(jobs) == [(["true"], 3), (["false"], 1), (["true"], 1)]
    assert told(iter([TRUE, TRUE])) == [(["true"], 2)]  # type: ignore[arg-type]


def test_neighbours_that_differ_in_their_commands_alone_are_told_with_those() -> None:
    daemon = Daemon()
    words = [["echo", "a"], ("echo", Path("b")), ["true"], ["true"], ["true"], ["echo", "a"]]
    jobs: list[Said] = [{"argv": argv, "gpus": 1, "tags": ["t"]} for argv in words]
    told(jobs, daemon)
    _, request = daemon.heard[-1]
    said = [(job["argv"], job.get("argvs"), job.get("times")) for job in request["jobs"]]
    assert said == [
        (["echo", "a"], [["echo", "b"], ["true"]], None),
        (["true"], None, 2),
        (["echo", "a"], None, 1),
    ]


@pytest.mark.parametrize(
    "other",
    [{"gpus": 2}, {"gpus": True}, {"gpus": 1, "name": "n"}, {}, {"gpus": 1, "seed": 7}],
)
def test_who_differs_in_more_than_the_command_is_told_alone(other: Said) -> None:
    jobs = [TRUE, {"argv": ["false"], **other}]
    assert told(jobs) == [(["true"], None), (["false"], None)]


@pytest.mark.parametrize("argv", [None, "false", 7, [7]])
def test_a_command_that_is_none_is_refused_among_others(argv: Any) -> None:
    with pytest.raises(UsageError, match="argv"):
        told([TRUE, {"argv": argv, "gpus": 1}])


def test_jobs_that_all_differ_are_told_as_ever() -> None:
    daemon = Daemon()
    assert told([TRUE, {"argv": ["false"]}], daemon) == [(["true"], None), (["false"], None)]
    assert {do for do, _ in daemon.heard} == {"submit"}


@pytest.mark.parametrize(
    "own",
    [
        {"seed": 7},
        {"key": "nightly"},
        {"array": "0-3"},
        {"grid": {"lr": [1, 2]}},
        {"on_end": "echo over"},
        {"gpu_mem": "auto"},
        {"after": [{"entry": 0}]},
    ],
)
def test_what_is_a_jobs_own_is_told_with_each(own: Said) -> None:
    words = ["echo", "{lr}"] if "grid" in own else ["true"]
    job = {"argv": words} | own
    assert told([job, job, job]) == [(words, None)] * 3
    assert told([job, job | {"argv": ["false"]}]) == [(words, None), (["false"], None)]


def test_places_stay_where_one_waits_for_another() -> None:
    waits = {"argv": ["false"], "after": [{"entry": 1}]}
    assert told([TRUE, TRUE, waits]) == [(["true"], None)] * 2 + [(["false"], None)]


def test_true_is_not_one() -> None:
    assert told([{"argv": ["true"], "gpus": 1}, {"argv": ["true"], "gpus": True}]) == [
        (["true"], None),
        (["true"], None),
    ]


def test_an_older_daemon_is_told_each_with_its_seed() -> None:
    daemon = Daemon("submit")
    assert told([TRUE, TRUE], daemon) == [(["true"], None)] * 2
    first, last = daemon.heard[0], daemon.heard[-1]
    assert (first[0], last[0]) == ("submit_alike", "submit")
    assert first[1]["token"] == last[1]["token"]
    seeds = [job["seed"] for job in last[1]["jobs"]]
    assert seeds[0] != seeds[1]


def test_what_a_daemon_refuses_is_not_asked_again() -> None:
    daemon = Daemon("submit", trouble=UsageError("name: too long"))
    with pytest.raises(UsageError, match="too long"):
        told([TRUE, TRUE], daemon)
    assert [do for do, _ in daemon.heard] == ["submit_alike"]


def test_the_environment_goes_to_a_daemon_that_has_it_not() -> None:
    daemon = Daemon()
    told([TRUE, TRUE], daemon)
    assert [("environment" in request) for _, request in daemon.heard] == [False, True]
