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
        sys.exit("usage: python -m gpuq.manual DIR (they go to DIR/man1, DIR/man5 and DIR/man8)")
    for name, make in PAGES.items():
        page = Path(sys.argv[1], name)
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(make(), encoding="utf-8")
        except OSError as error:
            sys.exit(f"python -m gpuq.manual: cannot write {page}: {error.strerror}")
        print(page)


if __name__ == "__main__":
    main()
