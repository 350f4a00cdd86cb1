"""A daemon of another version, upgraded under an open screen: the screen says so, and lives on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.errors import GpuqError
from gpuq.tui import feed
from gpuq.tui.data.detail.known import Known
from gpuq.tui.data.understood import NOT_UNDERSTOOD, check_history, check_part
from tests.cli.said import Said, gpu, in_full
from tests.tui.screened import NOW, Screened, row, screened

RUNS = {"state": "running", "attempt": 1, "started_at": NOW - 9, "gpus": [0]}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "AGAIN_S", 0.01)


@pytest.mark.parametrize(
    "news",
    [
        {"gpu_order": ["GPU-0", "nope"]},
        {"jobs": [{"id": 5, "last_id": 5}]},
        {"jobs": None},
        {"jobs": [row(1, **RUNS) | {"started_at": -1e18}]},
        {"jobs": [row(1, **RUNS) | {"last_id": None}]},
        {"jobs": [row(1, **RUNS) | {"priority": 10**30}]},
        {"jobs": [row(1, **RUNS) | {"name": 7}]},
        {"gpus": [gpu(0) | {"power_w": "x"}]},
        {"gpus": [gpu(0) | {"power_w": 1e300}]},
        {"counts": []},
        {"number": "x"},
    ],
)
def test_news_that_is_not_understood_is_said_and_a_new_picture_asked_for(
    tmp_path: Path, news: Said
) -> None:
    async def deed(screen: Screened) -> None:
        screen.daemon.push(**news)
        await screen.shows(NOT_UNDERSTOOD[:60])
        await screen.until(lambda: len(screen.daemon.requests("subscribe")) == 2, "a new picture")
        assert "since" not in screen.daemon.requests("subscribe")[1]
        await screen.until(lambda: not screen.app._is_behind, "it to be taken")
        screen.daemon.push(jobs=[row(2, name="second")])
        await screen.shows("second")

    screened(tmp_path, deed, jobs=[row(1)], gpus=[gpu(0)], is_foreign=True, size=(120, 30))


def raw(said: Callable[[int], bytes]) -> Callable[[Screened], None]:
    def push(screen: Screened) -> None:
        for connection, number in list(screen.daemon._subscribed.items()):
            connection.sendall(said(number) + b"\n")

    return push


@pytest.mark.parametrize(
    "said",
    [
        lambda number: b"hello",
        lambda number: b'{"id":%d}' % number,
        lambda number: b'{"id":%d,"error":"x"}' % number,
        lambda number: b'{"id":%d,"more":"x"}' % number,
        lambda number: b'{"id":%d,"more":{}}' % number,
        lambda number: b'{"id":%d,"error":{"code":[]}}' % number,
        lambda number: b"[" * 200_000,
    ],
)
def test_the_feed_goes_on_after_whatever_was_said(
    tmp_path: Path, said: Callable[[int], bytes]
) -> None:
    async def deed(screen: Screened) -> None:
        raw(said)(screen)
        await screen.until(lambda: len(screen.daemon.requests("subscribe")) >= 2, "another one")
        screen.daemon.picture["jobs"] = [row(1), row(2, name="second")]
        await screen.until(lambda: screen.daemon._subscribed, "it to be told")
        await screen.until(
            lambda: screen.app.lost is None and not screen.app._is_behind, "it to be understood"
        )
        screen.daemon.push(jobs=[row(2, name="second")])
        await screen.shows("second")

    screened(tmp_path, deed, jobs=[row(1)], is_foreign=True, size=(120, 30))


def test_any_fault_in_the_feed_is_told_as_a_loss_and_got_over(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        lost: list[GpuqError] = []
        app, subscribe = screen.app, screen.app.client.subscribe
        app._feed._lose = lost.append
        faults = [RuntimeError("odd"), OSError("odd")]

        def failing(**asked: Any) -> Any:
            if faults:
                raise faults.pop()
            return subscribe(**asked)

        app.client.subscribe = failing  # type: ignore[method-assign]
        screen.daemon.hang_up()
        await screen.until(lambda: len(screen.daemon.requests("subscribe")) == 2, "another one")
        assert ["odd" in str(error) for error in lost] == [False, True, True]

    screened(tmp_path, deed, jobs=[row(1)])


@pytest.mark.parametrize(
    ("keys", "answers"),
    [
        (["enter"], {"show": {}}),
        (["enter"], {"show": {"job": {"id": 1}}}),
        (["x"], {"consequences": {}}),
        (["x"], {"consequences": {"stranded": 5}}),
        (["h"], {"hold": {"done": [{}]}}),
        (["x", "y"], {"kill": {"x": 1}, "consequences": {"jobs": [], "stranded": []}}),
        (["2"], {"gpu_history": {"begin_at": 0, "step_s": 0, "gpus": {}}}),
        (["2"], {"gpu_history": {"gpus": {"GPU-0": {"power_w": [1, "x"]}}}}),
    ],
)
def test_an_answer_that_is_not_understood_is_said_and_no_more(
    tmp_path: Path, keys: list[str], answers: dict[str, Any]
) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press(*keys)
        await screen.until(lambda: screen.app.not_understood is not None, "it to be noticed")
        said = [message.text for message in screen.app.messages.newest_first()]
        assert NOT_UNDERSTOOD in said
        await screen.press("escape", "1")
        screen.daemon.push(jobs=[row(2, name="second")])
        await screen.shows("second")

    screened(
        tmp_path,
        deed,
        jobs=[row(1)],
        gpus=[gpu(0)],
        answers=answers,
        is_foreign=True,
        size=(120, 30),
    )


def test_a_job_that_cannot_be_shown_as_time_goes_on_ends_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("enter")
        await screen.shows("gpuq submit -g 1 -n job-1")
        screen.daemon.push(jobs=[row(1, **RUNS) | {"on_failure": 7}])
        await screen.shows(NOT_UNDERSTOOD[:60])
        for _ in range(2):
            screen.app.screen._tick()
        screen.daemon.push(jobs=[row(1, **RUNS, name="again")])
        await screen.until(lambda: screen.app.picture.rows.at(1)["name"] == "again", "the news")
        assert "again" in screen.text()

    screened(tmp_path, deed, jobs=[row(1, **RUNS)], is_foreign=True, size=(120, 40))


def test_a_job_that_cannot_be_shown_is_not_tried_again_when_a_tab_is_opened(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        pane = screen.app.screen.pane
        with pytest.raises(KeyError, match="command"):
            pane.show(Known(row=row(1), answers={"show": {"id": 1}}))
        pane.open("detail")

    answers = {"show": {"job": in_full(row(1))}}
    screened(tmp_path, deed, jobs=[row(1)], answers=answers, size=(120, 30))


@pytest.mark.parametrize(
    "job",
    [
        {"id": 1},
        in_full(row(1)) | {"attempts": [{}]},
        in_full(row(1)) | {"attempt": "x"},
        in_full(row(1)) | {"attempts": None},
    ],
)
def test_where_no_log_can_be_found_with_what_is_told_of_a_job_that_is_said_in_its_place(
    tmp_path: Path, job: Said
) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("l")
        await screen.until(lambda: NOT_UNDERSTOOD[:30] in screen.text_of("#pane"), "it to be said")

    screened(
        tmp_path,
        deed,
        jobs=[row(1)],
        answers={"show": {"job": job}},
        is_foreign=True,
        size=(120, 30),
    )


def test_a_fault_of_the_screen_itself_is_not_hidden_in_a_test(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        def draw(answer: object) -> None:
            raise KeyError("ours")

        screen.app.ask(lambda client: 1, draw, group="ours")
        await screen.settle()

    with pytest.raises(KeyError, match="ours"):
        screened(tmp_path, deed, jobs=[row(1)])


def test_what_a_daemon_says_is_understood() -> None:
    part = {"number": 1, "jobs": [row(1, **RUNS), row(2)], "gpus": [gpu(0)], "counts": {}}
    check_part(json.loads(json.dumps(part)))
    history = {"begin_at": 1.0, "step_s": 1.0, "gpus": {"GPU-0": {"power_w": [None, 1.5]}}}
    assert check_history(history) is history
