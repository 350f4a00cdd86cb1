"""What can be taken along from a screen: into the clipboard, and into files."""

from collections.abc import Sequence
from typing import Any

from gpuq.cli.render import Job, cut, printable
from gpuq.core.units import count
from gpuq.tui import keys
from gpuq.tui.data.copying import LAST_LINES, copyable, report
from gpuq.tui.export import files
from gpuq.tui.export.files import Export
from gpuq.tui.log_reader import last_lines
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.screens.dialogs.choosing import CopyMenu, ExportMenu
from gpuq.tui.screens.dialogs.dialog import Prompt

SHOWN = 60  # signs of what was copied


class TakesAlong(GpuqScreen):
    """A screen says which job is meant, and which tables it has: None where it has none."""

    def chosen_job(self) -> int | None:
        return None

    def table_rows(self) -> Sequence[Any] | None:
        return None

    def export_table(self, rows: Sequence[Any]) -> Export:
        """Of those rows."""
        return files.table(rows, self.gpuq.signs.now())

    def graph_rows(self) -> Sequence[dict[str, Any]] | None:
        return None

    # ── the clipboard ──

    def action_copy_menu(self) -> None:
        job, marked = self.chosen_job(), self.get_selected_text()
        if job is None:
            self.gpuq.say("there is no job to copy anything of")
            return
        self.gpuq.ask(
            lambda client: client.call("show", ref=str(job))["job"],
            lambda found: self._offer(found, marked),
            group="copying",
            opens=True,
        )

    def _offer(self, job: Job, marked: str | None) -> None:
        parts = copyable(job) | ({"marked": marked} if marked else {})
        previews = {name: printable(" ".join(text.split())) for name, text in parts.items()}
        if not job.get("hidden"):
            previews["report"] = f"how it went, and the last {LAST_LINES} lines of its log"

        def copy(name: str | None) -> None:
            if name == "report":
                self._copy_report(job)
            elif name is not None:
                self.copy(name, parts[name])

        if self.is_current:
            title = f"Copy of {job['id']} {printable(job['name'])}"
            self.app.push_screen(CopyMenu(title, keys.COPYING, previews), copy)

    def _copy_report(self, job: Job) -> None:
        now = self.gpuq.signs.now()
        self.gpuq.ask(
            lambda client: report(job, last_lines(job, LAST_LINES), now),
            lambda text: self.copy("report", text),
            group="copying",
        )

    def copy(self, name: str, text: str) -> None:
        text = text.encode("utf-8", "backslashreplace").decode()
        self.app.copy_to_clipboard(text)
        what = cut(" ".join(text.split()), SHOWN)
        self.gpuq.say(
            f"copied ({name}, {count(len(text), 'sign')}), where the terminal allows it: {what}"
        )

    # ── files ──

    def action_export(self) -> None:
        if self.app.is_web:  # which only looks, whoever has the address: files here are not theirs
            self.gpuq.say("from a browser nothing is saved on this machine: gpuq top in a terminal")
            return
        table, graph = self.table_rows(), self.graph_rows()
        previews = {
            "picture": f"{self.size.width}x{self.size.height}",
            "table": None if table is None else count(len(table), "row"),
            "graph": count(len(graph), "reading") if graph else None,
        }

        def make(name: str | None) -> None:
            if name == "table":
                self._ask_where(self.export_table(table or ()))
            elif name == "graph":
                self._ask_where(files.graph(graph or ()))
            elif name == "picture":
                self._save_picture()

        self.app.push_screen(ExportMenu("Save", keys.EXPORTING, previews), make)

    def _save_picture(self) -> None:
        title = f"gpuq on {self.gpuq.host}"
        self._ask_where(files.picture(self.app.export_screenshot(title=title)))

    def _ask_where(self, export: Export) -> None:
        told: dict[str, str] = {}  # by path what was said of it first, which was seen for sure

        def tell(path: str) -> list[str]:
            forecast = files.forecast(path)
            told.setdefault(path, forecast)
            return [forecast]

        def write(path: str | None) -> None:
            if path is not None:
                may_replace = told.get(path) != files.whole_path(path)
                self.gpuq.ask(
                    lambda client: files.write(export, path, may_replace=may_replace),
                    lambda whole: self.gpuq.say(f"wrote {export.about}: {whole}"),
                    group="exporting",
                )

        name = files.proposed(export, self.gpuq.host, self.gpuq.signs.now())
        asked = Prompt(
            f"Save {export.about}",
            ["Into the file:"],
            does="write",
            tell=tell,
            value=name,
            acts=False,
        )
        self.app.push_screen(asked, write)
