"""The part of the app that asks the daemon and does deeds, in threads of their own, and bears whatever
comes back."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from textual.message import Message

from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.tui.asking import DOERS, LOOKERS, Crew, Looks
from gpuq.tui.data.picture import Picture
from gpuq.tui.data.understood import NOT_UNDERSTOOD
from gpuq.tui.deeds.deed import Deed
from gpuq.tui.saying import SayingApp
from gpuq.tui.typing_ahead import TypingAhead

Answer = TypeVar("Answer")

# What comes of an answer that has another form than ours do.
FOREIGN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class AskingApp(SayingApp, TypingAhead):
    """`not_understood` is what came last of an answer that has another form than was expected."""

    client: Client
    picture: Picture
    lost: GpuqError | None
    daemon_options: Sequence[str]

    class Answered(Message):
        """In a thread; `take` is for the thread of the screen."""

        def __init__(self, take: Callable[[], None]) -> None:
            super().__init__()
            self.take = take

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self.not_understood: Exception | None = None
        self._queue = 0  # how many others there were before the one that is shown
        self._lookers, self._doers = Crew("look", LOOKERS), Crew("deed", DOERS)
        self._looks = Looks(self._lookers)

    def why_off(self) -> str | None:
        """Why nothing can be changed just now; None: it can."""
        raise NotImplementedError

    def stop_asking(self) -> None:
        self._lookers.stop()
        self._doers.stop()

    def ask(
        self,
        call: Callable[[Client], Answer],
        then: Callable[[Answer], None],
        *,
        group: str,
        opens: bool = False,
    ) -> None:
        """`call` in a thread, then `then` with its answer, unless something else of the same group was
        asked for meanwhile, or there is another queue. What goes wrong is said. `opens`: what is typed
        meanwhile is for what that opens."""
        queue = self._queue

        def take(deed: Callable[[], None]) -> None:
            if not self._looks.is_latest(group, work):
                return
            if queue == self._queue:
                self.understand(deed)
            self.let_keys_go(group)

        def work() -> None:
            self._post_answer(_tried(lambda: call(self.client), then, self.say_error), take)

        if opens:
            self.hold_keys(group)
        self._looks.add(group, work)

    def do(
        self,
        deed: Deed,
        then: Callable[[Any], None] | None = None,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        """Carries it out in a thread, and says the line of it with what came of it; then it is `over`,
        whatever came, and where something was done `then` is told of the answer."""
        line = deed.line_for(self.daemon_options)
        if (why := self.why_off()) is not None:
            self.say(why, command=line, is_error=True, is_of_loss=self.lost is not None)
            return
        queue = self._queue

        def tell(answer: Any) -> None:
            undo_for_s = self.picture.undo_for_s if deed.can_undo(answer) else 0.0
            self.say(
                deed.said(answer),
                command=line,
                is_error=deed.failed(answer),
                undo_for_s=undo_for_s if queue == self._queue else 0.0,
            )
            if then is not None and queue == self._queue:
                then(answer)

        def take(deed: Callable[[], None]) -> None:
            over()
            self.understand(deed, command=line)

        def work() -> None:
            say_error = partial(self.say_error, command=line)
            took = _tried(lambda: deed.ask(self.client), tell, say_error)
            self._post_answer(took, take)

        self.say(f"{line} …", is_passing=True)
        self._doers.add(work)

    def understand(self, take: Callable[[], None], *, command: str = "") -> bool:
        """Takes what the daemon said; False: it was not what is understood here, and that is said."""
        try:
            take()
        except FOREIGN as error:
            self.not_understood = error
            shown = self.messages.shown(self.signs.now())
            if command or shown is None or shown.text != NOT_UNDERSTOOD:
                self.say(NOT_UNDERSTOOD, command=command, is_error=True)
            return False
        return True

    def _post_answer(
        self, deed: Callable[[], None], take: Callable[[Callable[[], None]], None]
    ) -> None:
        """Nobody is told any more who has left."""
        if self.is_running:
            self.post_message(self.Answered(partial(take, deed)))

    def on_asking_app_answered(self, answered: Answered) -> None:
        if self.screen_stack:  # who is about to leave has none any more
            answered.take()


def _tried(
    call: Callable[[], Answer],
    then: Callable[[Answer], None],
    say_error: Callable[[GpuqError], None],
) -> Callable[[], None]:
    """What is to be done with what came of it, on the thread of the screen."""
    try:
        answer = call()
    except GpuqError as error:
        return partial(say_error, error)
    except Exception as error:
        return partial(_raise, error)
    return partial(then, answer)


def _raise(error: Exception) -> None:
    raise error
