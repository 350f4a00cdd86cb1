"""What all screens have."""

from typing import TYPE_CHECKING, cast

from textual.binding import ActiveBinding
from textual.screen import Screen

from gpuq.tui import keys
from gpuq.tui.data.picture import Change
from gpuq.tui.looks import Line
from gpuq.tui.widgets.key_line import KeyLine
from gpuq.tui.widgets.top_line import TopLine

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp


class GpuqScreen(Screen[None]):
    """Is shown what has changed while it is up, and all of it whenever it comes up again."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (24, "-high")]  # noqa: RUF012

    @property
    def gpuq(self) -> "GpuqApp":
        return cast("GpuqApp", self.app)

    def show(self, change: Change) -> None:
        """What the app's picture holds by now."""

    def set_stale(self, is_stale: bool) -> None:
        """Whether what is shown is of a while ago: then it is greyed, and keys that act are off."""
        if is_stale != self.has_class("-stale"):
            self.set_class(is_stale, "-stale")
            self.query_one(KeyLine).show_again()
            self.query_one(TopLine).refresh()

    def keep_draft(self) -> None:
        """What is being written stays for later, where it is of no job: the screen is closed."""

    @property
    def is_frozen(self) -> bool:
        """What is shown stands still, though the picture goes on."""
        return False

    def view_words(self) -> str:
        """Whose jobs are shown, in a word or two; empty where there is no choice."""
        return ""

    def keys_go_to(self) -> str:
        """What the keys that move are for, in a word; empty where nothing else could be meant."""
        return ""

    def on_mount(self) -> None:
        self.set_class(not self.gpuq.signs.unicode, "-ascii")
        if len(self.gpuq.screen_stack) > 1:  # it was opened over another, of which the message was
            self.gpuq.hush()

    def on_screen_resume(self) -> None:
        self.set_stale(self.gpuq.lost is not None)
        self.show(Change(jobs=None, gpus=True, beside=True))

    def write_status(self, line: Line) -> None:
        """What stands in the line of messages while there is none."""

    def why_not(self, action: str) -> str | None:
        """Why a key does nothing just now: it is shown as off, and says that when it is pressed."""
        return self.gpuq.why_off() if action in keys.ACTING else None

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """A key that is off is bound all the same, so that it can say why."""
        return {
            key: active
            if self.why_not(active.binding.action) is None
            else active._replace(enabled=False)
            for key, active in super().active_bindings.items()
        }
