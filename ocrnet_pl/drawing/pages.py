"""HTML pages that need no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

from PIL import Image

from ocrnet_pl.storage.files import complete_file

_STYLE = """
:root { --ink: #1f2933; --soft: #66727f; --paper: #f6f7f9; --card: #fff; --line: #e2e6ea;
  --error: #d92d3a; --warning: #b7791f; --note: #2b6cb0; --good: #2f855a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa5b1; --paper: #14181d; --card: #1d232a;
  --line: #323b45; --error: #ff6b75; --warning: #ecc05a; --note: #7db7f0; --good: #68c796; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 80px; }
h1 { font-size: 25px; margin: 0 0 2px; } h2 { font-size: 19px; margin: 40px 0 12px; } h3 { font-size: 16px; margin: 0; }
p { margin: 4px 0; } .soft { color: var(--soft); } code { font: 12.5px/1.4 ui-monospace, monospace; }
.tiles { display: flex; gap: 12px; margin: 20px 0 0; flex-wrap: wrap; }
.tile, .card, .scroll, .charts figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 10px 18px; min-width: 120px; }
.tile b { display: block; font-size: 24px; line-height: 1.25; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--note); }
.good { color: var(--good); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } th, td { padding: 6px 14px; text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: 13px; border-bottom: 1px solid var(--line); }
td { border-top: 1px solid var(--line); } tr:first-child td { border-top: 0; }
.text, th.text { text-align: left; } td.fold { white-space: normal; overflow-wrap: anywhere; }
td .bar { display: inline-block; height: 8px; border-radius: 2px; vertical-align: middle; margin-left: 8px; }
.split { border-left: 1px solid var(--line); }
.card { padding: 16px 18px; margin: 14px 0; }
.card header { display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap; }
.badge { font-size: 12px; font-weight: 600; border: 1px solid currentColor; border-radius: 99px; padding: 0 9px; }
.pictures { display: flex; flex-wrap: wrap; gap: 14px; margin: 14px 0 4px; }
.pictures figure { margin: 0; max-width: 420px; } .pictures .wide { max-width: 860px; }
.pictures img { display: block; max-width: 100%; border-radius: 6px; border: 1px solid var(--line); }
.pictures figcaption { font-size: 12.5px; color: var(--soft); overflow-wrap: anywhere; margin-top: 4px; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--soft); } details .scroll { margin-top: 8px; }
details td, details th { padding: 4px 10px; font-size: 13px; }
.charts { display: flex; flex-wrap: wrap; gap: 14px; }
.charts figure { margin: 0; padding: 12px; flex: 1 1 440px; max-width: 600px; }
.charts figcaption { font-weight: 600; font-size: 14px; } svg { width: 100%; height: auto; display: block; }
svg { color: var(--soft); } .swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; }
.key span { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 14px; }
nav { margin-top: 14px; } nav a { color: inherit; margin-right: 16px; white-space: nowrap; }
"""


def write_document(path: Path, title: str, body: Iterable[str]) -> None:
    """Write a page in the project's style; the file appears under its name only when it is complete.

    Args:
        path: Path of the page.
        title: Title as plain text.
        body: Parts of the page, as HTML.
    """
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    with complete_file(path) as unfinished:
        # A file's name may hold what is no text.
        unfinished.write_text(html, encoding="utf-8", errors="replace")


def as_data_url(image: Image.Image) -> str:
    """Return a picture as text that can be embedded in a page."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def png_data_url(path: Path) -> str:
    """Return a PNG file as text that can be embedded in a page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
