"""Formulas of the notebooks as MathML, which browsers draw without a script."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^\s$][^$\n]*)\$", re.DOTALL)
_found: dict[str, list[str]] = {}
"""The formulas of each page, in the order of its marks."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put marks in the place of formulas, so that Markdown does not take them apart."""
    shown = page.file.src_uri
    if not shown.startswith("notebooks/"):
        return markdown
    formulas = _found[shown] = []

    def marked(match: re.Match[str]) -> str:
        if match["code"]:
            return match[0]
        block = match["block"] is not None
        formulas.append(convert(match["block"] or match["inline"], display="block" if block else "inline"))
        return f"FORMULA{len(formulas) - 1}MARK"

    return _FORMULA.sub(marked, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Put the formulas in the place of their marks."""
    formulas = _found.pop(page.file.src_uri, [])
    return re.sub(r"FORMULA(\d+)MARK", lambda mark: formulas[int(mark[1])], html)
