"""Draws what tmux captured, colours and all, as an SVG picture.

    pictures.py CAPTURED TITLE PICTURE
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

# Fonts that machines have: a picture fetches nothing.
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
# Dark, with the sixteen colours after Okabe and Ito.
THEME = TerminalTheme(
    (18, 20, 24),
    (214, 218, 224),
    [(18, 20, 24), (213, 94, 0), (0, 158, 115), (230, 159, 0),
     (86, 180, 233), (204, 121, 167), (0, 114, 178), (214, 218, 224)],
    [(120, 124, 132), (213, 94, 0), (0, 158, 115), (240, 228, 66),
     (86, 180, 233), (204, 121, 167), (0, 114, 178), (255, 255, 255)],
)


def main():
    captured, title, picture = sys.argv[1:]
    lines = Path(captured).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    # tmux carries an attribute from one line into the next; rich reads each line for itself.
    text = Text("\n").join(Text.from_ansi(line) for line in whole(lines))
    width = max(line.cell_len for line in text.split())
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True,
                      color_system="truecolor", legacy_windows=False)
    console.print(text, no_wrap=True, crop=False, soft_wrap=True)
    svg = console.export_svg(title=title, theme=THEME, unique_id="weir")
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", FONTS).replace("Fira Code", FONTS)
    svg = svg.replace("font-family: arial", f"font-family: {FONTS}")
    # Nothing that ends a line with spaces or fetches from elsewhere.
    svg = "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"
    if "url(http" in svg or "Fira" in svg:
        sys.exit("pictures: the picture would fetch something")
    Path(picture).write_text(svg, encoding="utf-8")


def whole(lines):
    """Lines that each begin with the attributes that held at the end of the line before."""
    held = ""
    for line in lines:
        begun = held + line
        for codes in re.findall(r"\x1b\[([0-9;]*)m", line):
            fresh = codes in ("", "0") or codes.startswith("0;")
            held = f"\x1b[{codes}m" if fresh else held + f"\x1b[{codes}m"
        yield begun


main()
