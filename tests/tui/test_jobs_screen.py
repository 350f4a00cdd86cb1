"""The main screen as a whole."""

from pathlib import Path

import pytest

from tests.cli.said import simulated
from tests.tui.screened import Screened, row, screened


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 30), (160, 48)])
def test_it_starts_in_any_window(tmp_path: Path, size: tuple[int, int]) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("183")
        assert len(screen.text().splitlines()) == size[1]

    jobs = [row(181, state="running"), row(183, state="queued")]
    screened(tmp_path, deed, size=size, jobs=jobs, gpus=[simulated(0)])


def test_what_changes_is_seen_and_what_is_gone_is_not(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.daemon.push(jobs=[row(181, name="renamed")], looked_at=[[181, 181], [183, 183]])
        await screen.shows("renamed")
        assert "183" not in screen.text()

    screened(tmp_path, deed, jobs=[row(181), row(183)])


def test_a_daemon_that_went_away_is_said_and_found_again(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.daemon.hang_up()
        await screen.until(lambda: screen.app.lost is not None, "the loss to be noticed")
        await screen.until(lambda: screen.app.lost is None, "it to be found again")
        assert [one["since"] for one in screen.daemon.requests("subscribe")[1:]] == [100]

    screened(tmp_path, deed, jobs=[row(181)])
