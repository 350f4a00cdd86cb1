"""Keys that open the form: a new job, one like the job under the cursor, or that job changed."""

from dataclasses import replace
from typing import TYPE_CHECKING

from gpuq.cli.render import Job, printable
from gpuq.tui.data.spans import Row
from gpuq.tui.screens.base import GpuqScreen

if TYPE_CHECKING:
    from gpuq.tui.data.form.form import Form

FORMS = ("new_job", "duplicate", "edit")


def why_not_copied(job: Row | Job | None) -> str | None:
    """Why a form can not begin with what it runs."""
    if job is None or not job.get("hidden"):
        return None
    whose = f"job {job['id']} is {printable(job['user'])}'s"
    return f"{whose}, and what it runs is not told: there is nothing to duplicate"


class OpensForms(GpuqScreen):
    def job_for_form(self) -> int | None:
        """The job under the cursor; None: there is none."""
        raise NotImplementedError

    def number_for_form(self) -> int:
        """How many jobs are under the cursor."""
        return 1

    def ref_for_edit(self) -> str | None:
        """The jobs under the cursor, as a request takes them."""
        job = self.job_for_form()
        return None if job is None else str(job)

    def submitted(self, job: int) -> None:
        """It was queued or changed a moment ago."""

    def why_not(self, action: str) -> str | None:
        """A draft can be written while no daemon answers, but not where none is ever sent."""
        if action in FORMS and (why := self.gpuq.why_only_looks()) is not None:
            return why
        return super().why_not(action)

    def _is_off(self, action: str) -> bool:
        """Which is said."""
        if (why := self.why_not(action)) is not None:
            self.gpuq.say(why, is_error=True)
        return why is not None

    # The form reads its options as the command line does: it is loaded when it is opened.

    def action_new_job(self) -> None:
        if self._is_off("new_job"):
            return
        from gpuq.tui.data.form.form import NEW, Form

        self._open(self.gpuq.drafts.get(NEW, Form()))

    def action_duplicate(self) -> None:
        if self._is_off("duplicate"):
            return
        job = self.job_for_form()
        if job is None:
            self.gpuq.say("there is no job under the cursor to duplicate")
            return
        number = self.number_for_form()
        self.gpuq.ask(
            lambda client: client.call("show", ref=str(job))["job"],
            lambda found: self._open_duplicate(found, number),
            group="form",
            opens=True,
        )

    def _open_duplicate(self, job: Job, number: int) -> None:
        from gpuq.tui.data.form.form import duplicate_of

        if (why := why_not_copied(job)) is not None:
            self.gpuq.say(why, is_error=True)
        else:
            form = duplicate_of(job, self.gpuq.user, number)
            self._open(self.gpuq.drafts.get(form.key, form))

    def action_edit(self) -> None:
        if self._is_off("edit"):
            return
        from gpuq.tui.data.form.form import edit_of

        ref = self.ref_for_edit()
        if ref is None:
            self.gpuq.say("there is no job under the cursor to edit")
            return
        self.gpuq.ask(
            lambda client: client.editable([ref]),
            lambda editable: self._open(self._kept_or(edit_of(editable))),
            group="form",
            opens=True,
        )

    def _kept_or(self, form: "Form") -> "Form":
        """The draft that was left, if the job is still what it was of."""
        kept = self.gpuq.drafts.get(form.key)
        if kept is None or kept.edits != form.edits:
            return form
        return replace(form, draft=kept.draft)

    def _open(self, form: "Form") -> None:
        from gpuq.tui.screens.form import FormScreen

        if self.is_current:
            self.gpuq.push_screen(FormScreen(form, self.submitted))
