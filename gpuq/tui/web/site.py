"""The server: a page, the files it needs, and a websocket for each screen that is open."""

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from importlib.resources import files
from string import Template

from aiohttp import WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from gpuq.errors import GpuqError
from gpuq.tui.web.doorway import LOGGER, WAITING, Doorway
from gpuq.tui.web.gate import Gate, Visitor
from gpuq.tui.web.session import Session, is_figure, side

ADDRESS = "127.0.0.1"
SESSIONS = 8  # screens open at a time; each is a process
LEAVE_S = 1.0  # for an answer that is being sent when the server leaves
MESSAGE_BYTES = 1 << 20  # the longest that a page may send: what is pasted

STATIC = {
    "textual.js": ("textual_serve", "static/js/textual.js", "text/javascript"),
    "xterm.css": ("textual_serve", "static/css/xterm.css", "text/css"),
    "RobotoMono.ttf": (
        "textual_serve",
        "static/fonts/RobotoMono-VariableFont_wght.ttf",
        "font/ttf",
    ),
    "page.js": ("gpuq.tui.web", "page.js", "text/javascript"),
    "page.css": ("gpuq.tui.web", "page.css", "text/css"),
}
# The page takes what this server has and nothing else.
CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self';"
    " img-src data:; connect-src ws://{host}; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {
    "Referrer-Policy": "no-referrer",  # it would tell the token
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def serve(command: Sequence[str], port: int, say: Callable[[str], None]) -> int:
    """Until Ctrl-C, TERM or a closed terminal; then every screen that it began is gone too. `command`
    is what a page shows; `port` 0 takes a free one; the URL goes to `say` and nowhere else."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, port))
            listening.listen(WAITING)
        except (OSError, OverflowError) as error:
            raise GpuqError(
                f"could not serve on {ADDRESS}:{port}: {error}. Another port: --port N, or leave it"
                " out for a free one"
            ) from None
        return asyncio.run(_serve(command, listening, say))


async def _serve(
    command: Sequence[str], listening: socket.socket, say: Callable[[str], None]
) -> int:
    return await Site(command, Gate()).serve(listening, say)


class Site:
    """Is made where the loop runs that it serves in."""

    def __init__(self, command: Sequence[str], gate: Gate) -> None:
        self._command = command
        self._gate = gate
        self._open: set[web.WebSocketResponse] = set()
        self._server = web.Server(self._answer, access_log=None, logger=LOGGER)
        self._doorway = Doorway(self._server)

    async def serve(self, listening: socket.socket, say: Callable[[str], None]) -> int:
        over = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, over.set)
        LOGGER.addFilter(_is_ours)
        say(f"http://{ADDRESS}:{listening.getsockname()[1]}/{self._gate.token}/")
        try:
            async with asyncio.TaskGroup() as tasks:
                receiving = tasks.create_task(self._doorway.receive(listening))
                await over.wait()
                receiving.cancel()
        finally:
            await self._close()
        return 0

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The path is taken as it is written, and compared as a whole: one that was quoted or has
        dots in it is none of ours. A stranger learns nothing from the answer."""
        path = request.rel_url.raw_path
        wanted = path.partition("/")[2].partition("/")[2]
        visitor = Visitor(
            path=path,
            host=request.headers.get("Host"),
            origin=request.headers.get("Origin"),
            method=request.method,
        )
        if not self._gate.lets_in(visitor, is_websocket=wanted == "ws"):
            return _nothing_here()
        self._doorway.recognise(request.transport)
        if wanted == "ws":
            return await self._screen(request)
        folder, _, name = wanted.partition("/")
        if folder == "static" and name in STATIC:
            return _static(name)
        return self._page(request) if path == f"/{self._gate.token}/" else _nothing_here()

    def _page(self, request: web.BaseRequest) -> web.Response:
        websocket = f"ws://{request.host}{request.rel_url.raw_path}ws"
        page = files("gpuq.tui.web").joinpath("page.html").read_text()
        return web.Response(
            text=Template(page).substitute(websocket=websocket),
            content_type="text/html",
            headers=HEADERS | {"Content-Security-Policy": CONTENT.format(host=request.host)},
        )

    async def _screen(self, request: web.BaseRequest) -> web.StreamResponse:
        if len(self._open) >= SESSIONS:
            return web.Response(status=503, text=f"{SESSIONS} screens are open already\n")
        page = web.WebSocketResponse(heartbeat=15, max_msg_size=MESSAGE_BYTES)
        self._open.add(page)
        try:
            await page.prepare(request)
            await self._show(page, _asked(request, "width", 80), _asked(request, "height", 24))
        finally:
            self._open.discard(page)
        return page

    async def _show(self, page: web.WebSocketResponse, width: int, height: int) -> None:
        """Until either of them goes."""
        session = Session(
            self._command, write=page.send_bytes, write_text=page.send_str, close=page.close
        )
        try:
            await session.start(width, height)
            async for message in page:
                if message.type is WSMsgType.TEXT:
                    await session.take(_read(message.data))
        finally:
            await asyncio.shield(session.stop())

    async def _close(self) -> None:
        self._server.pre_shutdown()
        await asyncio.gather(*(page.close() for page in self._open), return_exceptions=True)
        await self._server.shutdown(LEAVE_S)


def _static(name: str) -> web.Response:
    package, path, content_type = STATIC[name]
    body = files(package).joinpath(path).read_bytes()
    return web.Response(body=body, content_type=content_type, headers=HEADERS)


def _nothing_here() -> web.Response:
    answer = web.Response(status=404, text="nothing here\n")
    answer.force_close()
    return answer


def _is_ours(record: logging.LogRecord) -> bool:
    """What a stranger sends that is no HTTP is not written to the terminal."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def _asked(request: web.BaseRequest, name: str, default: int) -> int:
    said = request.query.get(name, "")
    return side(int(said)) if is_figure(said) else default


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
