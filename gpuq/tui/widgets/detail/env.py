"""The names of the variables that were set for it."""

from gpuq.tui.data.spans import Row
from gpuq.tui.looks import PLAIN_STYLE
from gpuq.tui.widgets.text_view import TextView


class EnvView(TextView):
    def show(self, row: Row | None) -> None:
        """Of the row under the cursor."""
        self.write([] if row is None else [[(str(row["state"]), PLAIN_STYLE)]])
