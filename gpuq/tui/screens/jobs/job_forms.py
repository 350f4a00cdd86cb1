"""The form on the jobs screen: it begins with the job under the cursor, and the cursor goes to the job
that came of it."""

from gpuq.cli.fold_text import first_id, ids_of, is_folded, span_of
from gpuq.core.units import format_spans
from gpuq.tui.data.listing.listing import Entry
from gpuq.tui.screens.form_actions import OpensForms
from gpuq.tui.screens.jobs.base import JobsBase


class OpensJobForms(JobsBase, OpensForms):
    _submitted: int | None = None  # the cursor goes there once it is told of

    def job_for_form(self) -> int | None:
        row = self.table.current
        return None if row is None else first_id(row)

    def number_for_form(self) -> int:
        row = self.table.current
        return 1 if row is None else sum(map(len, self.table.listing.spans_of(self.table.cursor)))

    def ref_for_edit(self) -> str | None:
        row = self.table.current
        if row is None:
            return None
        return ids_of(row) if is_folded(row) else format_spans([span_of(row)])

    def submitted(self, job: int) -> None:
        self._submitted = job
        self.find_submitted()

    def find_submitted(self) -> None:
        """Where a filter hides it the cursor stays where it is."""
        if self._submitted is None:
            return
        row = self.gpuq.picture.rows.holding(self._submitted)
        if row is None:
            return
        number = self.table.listing.number_of(Entry(row["group"], self._submitted))
        self._submitted = None
        if number is not None:
            self.table.move_to(number)
