"""The GPUs, a line for each, above the jobs."""

from textual.strip import Strip
from textual.widget import Widget

from gpuq.cli.render import bar, memory
from gpuq.tui.data.picture import Picture
from gpuq.tui.looks import DIM, Line, Signs


class GpuStrip(Widget):
    """As high as there are GPUs; in a low window it is one line that counts them."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._picture = Picture()

    def show(self, picture: Picture) -> None:
        self._picture = picture
        self.styles.height = len(picture.gpus) + 1
        self.refresh()

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        if y == 0:
            line.add("GPU  MEM                UTIL  TEMP     W  JOB", DIM)
        elif y <= len(self._picture.gpus):
            gpu = self._picture.gpus[y - 1]
            used, total = gpu["memory_used_bytes"], gpu["memory_total_bytes"]
            line.add(str(gpu["index"]), wide=5).add(bar(used, total)).add(" ")
            line.add(memory(used, total), wide=10)
            line.add(" simulated " if gpu["simulated"] else " ", DIM)
            line.add(gpu["state"])
        return line.strip()
