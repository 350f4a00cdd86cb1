"""The log of a job: followed, searched, wrapped."""

from gpuq.tui.data.spans import Row
from gpuq.tui.widgets.text_view import TextView


class LogPane(TextView):
    def show(self, row: Row | None) -> None:
        """Of the row under the cursor."""
        self.write([])
