"""docs/troubleshooting.md quotes messages; each of them is one of the package's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.project import ROOT

PAGE = ROOT / "docs/troubleshooting.md"


def texts_of(path: Path) -> Iterator[str]:
    """Yield the texts of a file, with a mark in the place of each value that is filled in."""
    inner: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inner.update(node.values)
            yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
            yield node.value


def test_every_quoted_message_is_one_of_the_package() -> None:
    quoted = re.findall(r"^```text\n(.*?)\n```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(quoted) >= 25
    texts = [text for path in sorted((ROOT / "ocrnet_pl").rglob("*.py")) for text in texts_of(path)]

    def known(message: str) -> bool:
        """What is quoted as `...` may be filled in by several values or none, with text between them."""
        parts = message.split("...")
        longest = max(parts, key=len)
        whole = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
        return any(longest in text and whole.search(text) for text in texts)

    assert not [message for message in quoted if not known(message)]
