"""After a build: words that people search for lead to the pages that answer them, and no page is too large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lunr import lunr
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority

LARGEST = 2**20

ANSWERS = {
    "learning rate": ("troubleshooting.html", "tuning.html", "configuration.html", "reference/keys/model.html"),
    "out of memory": ("troubleshooting.html", "speed.html"),
    "my masks are shifted": ("troubleshooting.html", "check.html"),
}
"""Pages of which one has to be among the first three hits, by the words that are searched for."""


@event_priority(-200)
def on_post_build(config: Any) -> None:
    """Check what was written."""
    site = Path(config.site_dir)
    large = [str(path.relative_to(site)) for path in site.rglob("*.html") if path.stat().st_size > LARGEST]
    if large:
        raise PluginError(f"pages over {LARGEST} bytes: {', '.join(large)}")
    sections = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))["docs"]
    # The weights of the page's own search.
    fields = [{"field_name": "title", "boost": 1000}, {"field_name": "text", "boost": 1}]
    index = lunr(ref="location", fields=fields, documents=sections)
    for words, pages in ANSWERS.items():
        hits = [hit["ref"].partition("#")[0] for hit in index.search(words)]
        first = list(dict.fromkeys(hits))[:3]
        if not set(first) & set(pages):
            raise PluginError(f"a search for {words!r} finds {', '.join(first) or 'nothing'}, not {' or '.join(pages)}")
