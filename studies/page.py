"""One HTML page that works offline: its style, its parts, and plotly.js inlined once.

Every text that comes in is escaped here; figures travel as JSON in which no tag can close.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trainers.catalog import InputError
from trainers.checkpoints import put


class Html(str):
    """Text that is HTML already."""


def html(text: object) -> str:
    """Escaped, unless it is `Html`."""
    return text if isinstance(text, Html) else escape(str(text))


def tag(name: str, *inside: object, **attributes: str) -> Html:
    """`<name attribute="...">inside</name>`; a trailing underscore of an attribute is dropped."""
    listed = "".join(f' {key.rstrip("_")}="{escape(x)}"' for key, x in attributes.items())
    return Html(f"<{name}{listed}>{''.join(html(part) for part in inside)}</{name}>")


def paragraph(*inside: object, kind: str = "") -> Html:
    """A paragraph; its kind is a class of the style sheet."""
    return tag("p", *inside, class_=kind) if kind else tag("p", *inside)


def section(anchor: str, title: str, *parts: object) -> Html:
    """A section with a heading that can be linked to."""
    heading = tag("h2", tag("a", title, href=f"#{anchor}"))
    return tag("section", heading, *parts, id=anchor)


def figure(plot: go.Figure, caption: object, wide: bool = False) -> Html:
    """A figure with its caption; a wide one scrolls sideways on a small screen."""
    # "<" never reaches the page, so neither </script> nor <!-- in a name can end the block
    data = plot.to_json().replace("<", "\\u003c")
    block = Html(f'<script type="application/json">{data}</script>')
    height = f"min-height:{int(plot.layout.height or 400)}px"
    inner = tag("div", block, class_="plot wide" if wide else "plot", style=height)
    return tag("figure", tag("div", inner, class_="scroll"), tag("figcaption", caption))


def table(
    head: Sequence[object], rows: Sequence[Sequence[object]], marked: Sequence[int] = ()
) -> Html:
    """A table; cells that look like numbers stand right, marked rows are set off."""

    def cell(text: object) -> Html:
        numeric = not isinstance(text, Html) and str(text).startswith(tuple("0123456789+-\u2212."))
        return tag("td", text, **({"class_": "number"} if numeric else {}))

    body = [
        tag("tr", *(cell(x) for x in row), **({"class_": "marked"} if i in marked else {}))
        for i, row in enumerate(rows)
    ]
    top = tag("thead", tag("tr", *(tag("th", x) for x in head)))
    return tag("div", tag("table", top, tag("tbody", *body)), class_="scroll")


def footer() -> Html:
    """Who wrote the page, and when."""
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return tag("footer", f"Written by automate, {now}. This file works offline.")


def definitions(pairs: Sequence[tuple[object, object]]) -> Html:
    """Names and values, side by side."""
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("dl", *rows)


def write(path: Path, text: str) -> None:
    """Writes a page; its folder is made if there is none, an older page is replaced at once.

    Raises:
        InputError: A path that cannot be written; an older page is kept.
    """
    if path.is_dir():
        raise InputError(f"the report needs a file to be written to, {str(path)!r} is a folder")
    put(path, text.encode())


def page(title: str, header: Html, links: Sequence[tuple[str, str]], *sections: Html) -> str:
    """The whole document.

    Args:
        title: Of the window.
        header: What stands on top.
        links: (anchor, name) of the navigation.
        sections: The parts below.
    """
    own = files("studies")
    style = own.joinpath("page.css").read_text(encoding="utf-8")
    script = own.joinpath("page.js").read_text(encoding="utf-8")
    navigation = tag("nav", *(tag("a", name, href=f"#{anchor}") for anchor, name in links))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            header,
            navigation,
            tag("main", *sections),
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )
