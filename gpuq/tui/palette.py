"""What can be done, found by its name: the commands of the palette are the keys of the tables."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode

from gpuq.tui import keys
from gpuq.tui.keymap import shown
from gpuq.tui.keys import Key

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp
    from gpuq.tui.screens.base import GpuqScreen

NOT_HERE = ("palette",)  # it is open


class Command(NamedTuple):
    key: Key
    help: str
    run: Callable[[], Any]

    @property
    def text(self) -> str:
        return f"{self.key.id}: {self.key.about}"


class KeyCommands(Provider):
    """Whatever a key would do where the focus was; what cannot be done just now says why not."""

    async def startup(self) -> None:
        app = cast("GpuqApp", self.app)
        screen = cast("GpuqScreen", self.screen)
        known = {key.id: key for key in keys.all_keys() if key.id not in NOT_HERE}
        pressed: dict[str, list[str]] = {}
        nodes: dict[str, DOMNode] = {}
        for name, active in self.screen.active_bindings.items():
            if active.binding.id in known:
                pressed.setdefault(active.binding.id, []).append(name)
                nodes.setdefault(active.binding.id, active.node)
        self._commands = [
            self._command(
                key, nodes[key.id], shown(pressed[key.id], app), screen.why_not(key.action)
            )
            for key in known.values()
            if key.id in nodes
        ]

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self._commands:
            if (score := matcher.match(command.text)) > 0:
                display = matcher.highlight(command.text)
                yield Hit(score, display, command.run, text=command.text, help=command.help)

    async def discover(self) -> Hits:
        for command in self._commands:
            yield DiscoveryHit(command.text, command.run, help=command.help)

    def _command(self, key: Key, node: DOMNode, names: str, why_off: str | None) -> Command:
        app = cast("GpuqApp", self.app)
        if why_off is not None:
            return Command(
                key,
                f"{names}   off: {why_off}",
                lambda: app.say(f"{key.about}: {why_off}", is_error=True),
            )

        async def run() -> None:
            await app.run_action(key.action, default_namespace=node)

        return Command(key, names, run)
