"""A daemon, and its screen in browsers, for the tests of a file that only knock there."""

from collections.abc import Iterator

import pytest

from tests.conftest import Daemon
from tests.tui.serving import Served


@pytest.fixture(scope="module")
def web_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("web")).start()
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def shared(web_daemon: Daemon) -> Iterator[Served]:
    served = Served(web_daemon)
    yield served
    code, said = served.end()
    assert code == 0
    assert served.token.encode() not in said
    assert b"Traceback" not in said, said
