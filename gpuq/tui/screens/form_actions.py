"""Keys that open the form: a new job, one like the job under the cursor, or that job changed."""

from dataclasses import replace
from typing import TYPE_CHECKING

from gpuq.cli.render import Job, printable
from gpuq.tui.screens.base import GpuqScreen

if TYPE_CHECKING:
    from gpuq.tui.data.form.form import Form


class OpensForms(GpuqScreen):
    def job_for_form(self) -> int | None:
        """The job under the cursor; None: there is none."""
        raise NotImplementedError

    def ref_for_edit(self) -> str | None:
        """The jobs under the cursor, as a request takes them."""
        job = self.job_for_form()
        return None if job is None else str(job)

    def submitted(self, job: int) -> None:
        """It was queued or changed a moment ago."""

    # The form reads its options as the command line does: it is loaded when it is opened.

    def action_new_job(self) -> None:
        from gpuq.tui.data.form.form import NEW, Form

        self._open(self.gpuq.drafts.get(NEW, Form()))

    def action_duplicate(self) -> None:
        job = self.job_for_form()
        if job is None:
            self.gpuq.say("there is no job under the cursor to duplicate")
            return
        self.gpuq.ask(
            lambda client: client.call("show", ref=str(job))["job"],
            self._open_duplicate,
            group="form",
        )

    def _open_duplicate(self, job: Job) -> None:
        from gpuq.tui.data.form.form import duplicate_of

        if job.get("hidden"):
            whose = f"job {job['id']} is {printable(job['user'])}'s"
            self.gpuq.say(f"{whose}, and what it runs is not told: there is nothing to duplicate")
        else:
            self._open(duplicate_of(job, self.gpuq.user))

    def action_edit(self) -> None:
        from gpuq.tui.data.form.form import edit_of

        ref = self.ref_for_edit()
        if ref is None:
            self.gpuq.say("there is no job under the cursor to edit")
            return
        self.gpuq.ask(
            lambda client: client.editable([ref]),
            lambda editable: self._open(self._kept_or(edit_of(editable))),
            group="form",
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
