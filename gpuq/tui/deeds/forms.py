"""What the form does: a job is queued, or one that waits is changed. The words that are shown are read
again when it is done, so nothing else is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuq.cli.as_typed import read_edit, read_submit
from gpuq.cli.change import sentence
from gpuq.cli.edit import EDIT
from gpuq.cli.fold_text import together
from gpuq.client import Client
from gpuq.submitting import Submitting
from gpuq.tui.data.form.form import queued_words
from gpuq.tui.deeds.deed import Deed

Answer = Mapping[str, Any]


def submit_job(words: Sequence[str], token: str) -> Deed:
    """`words` are those behind `gpuq`. Asked again with the same token it is queued once."""

    def ask(client: Client) -> Answer:
        notes: list[str] = []
        job = read_submit(words[1:]).job
        answer = Submitting(client.call, notes.append).submit([job], None, token)
        return answer | {"notes": notes}

    return Deed(
        words=words,
        ask=ask,
        said=lambda answer: "; ".join([queued_words(answer), *answer["notes"]]),
    )


def edit_job(words: Sequence[str], version: int) -> Deed:
    """Only where nobody has changed it since it had that version."""

    def ask(client: Client) -> Sequence[Any]:
        edit = read_edit(words[1:])
        return client.edit(list(edit.refs), version=version, **edit.changes)

    return Deed(
        words=words,
        ask=ask,
        said=lambda done: "; ".join(sentence(run, EDIT) for run in together(done)),
        failed=was_refused,
    )


def was_refused(done: Sequence[Any]) -> bool:
    """The job has started, or was changed by somebody else meanwhile."""
    return any(run["done"] == "refused" for run in done)


def foretell(words: Sequence[str]) -> Callable[[Client], Answer]:
    """Asks what would become of it: `words` say it, `doubts` are what else is to be known. In a thread:
    the files that the words name are read."""

    def ask(client: Client) -> Answer:
        notes: list[str] = []
        job, doubts = read_submit(words[1:])
        (verdict,) = Submitting(client.call, notes.append).dry_run([job])["verdict"]
        return {**verdict, "doubts": [*doubts, *notes]}

    return ask
