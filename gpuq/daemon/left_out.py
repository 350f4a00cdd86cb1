"""What libraries take along where it is there, and the daemon has no use for: it is hidden from them as
they are imported, and they do without, as they would where it is not installed.

structlog takes rich, for faults in colour, and that is 4 MB; asyncio takes ssl, for connections that
leave the machine, and that is 1 MB. Has to be imported before anything that imports these.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("rich", "ssl")


@contextmanager
def _hidden() -> Iterator[None]:
    names = [name for name in NAMES if name not in sys.modules]
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]  # "not there", to whoever imports it
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


with _hidden():
    import asyncio  # noqa: F401

    import structlog  # noqa: F401
