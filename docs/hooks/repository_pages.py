"""Pages of the site that stand elsewhere in the repository: front pages, CONTRIBUTING.md, configs and notebooks."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
CONFIGS = "reference/config_files.md"

MOVED = {
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh-CN.md",
    # In the folder of the pages this is what the repository shows first; on the site, the front page is.
    "docs/README.md": "pages.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Files of the repository by the pages that show them."""

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


@event_priority(100)
def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for source, page in MOVED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, CONFIGS, content=_config_files()))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        _add_notebook(notebook, files, config)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the links to files of the repository lead to the pages that show them."""
    shown = page.file.src_uri
    source = next((source for source, at in MOVED.items() if at == shown), f"docs/{shown}")
    if shown.startswith("notebooks/"):
        source = shown
    elif page.file.generated_by and shown not in MOVED.values():
        return markdown

    def moved(link: re.Match[str]) -> str:
        start, target, end = link.groups()
        if ":" in target:
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if target.startswith("configs/"):
            target, end = CONFIGS, f"#{_anchor(target)})"
        elif target.endswith(".ipynb"):
            target = f"{target.removesuffix('.ipynb')}.md"
        else:
            target = MOVED.get(target, target.removeprefix("docs/"))
        return f"{start}{posixpath.relpath(target, posixpath.dirname(shown) or '.')}{end}"

    return _LINK.sub(moved, markdown)


def _anchor(path: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.removesuffix(".yaml"))


def _config_files() -> str:
    """Return a page with all files of ``configs/``."""
    lines = ["# The files of configs/", "", "Each of them is run by a test.", ""]
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8").rstrip()
        lines += [f"## {name} {{: #{_anchor(name)} }}", "", "```yaml", text, "```", ""]
    return "\n".join(lines)


def _add_notebook(path: Path, files: Files, config: Any) -> None:
    """Add a notebook as a page, with the pictures that it shows."""
    text, found = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
    folder = f"notebooks/{path.stem}_files"
    for name, content in found.get("outputs", {}).items():
        text = text.replace(f"]({name})", f"]({path.stem}_files/{name})")
        files.append(File.generated(config, f"{folder}/{name}", content=content))
    files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
