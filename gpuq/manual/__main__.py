"""`python -m gpuq.manual DIR` writes the pages below DIR, as man looks for them: man1/gpuq.1, …"""

import sys
from pathlib import Path

from gpuq.manual.command_page import command_page
from gpuq.manual.daemon_pages import daemon_page, settings_page

PAGES = {
    "man1/gpuq.1": command_page,
    "man5/gpuq.toml.5": settings_page,
    "man8/gpuqd.8": daemon_page,
}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("python -m gpuq.manual: the directory for the pages is wanted")
    for name, make in PAGES.items():
        page = Path(sys.argv[1], name)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(make(), encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main()
