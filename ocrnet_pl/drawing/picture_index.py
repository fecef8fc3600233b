"""A page that shows how the pictures of a run changed in training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from ocrnet_pl.drawing.pages import write_document

NAME = "index.html"
_PICTURE = re.compile(r"(?P<time>epoch-\d+|validate|test)_(?P<image>\d{5}_.*)\.png")
_PLOTS = {"curves.png": "Curves", "confusion.png": "Confusion of pixels"}


def write_index(folder: Path) -> None:
    """Write ``index.html`` beside the pictures: first the plots, then each image with its pictures in order of time.

    Args:
        folder: Folder with the pictures of a run, as the callback ``Pictures`` names them.
    """
    title = f"Pictures of {folder.resolve().parent.name}"
    write_document(folder / NAME, title, [f"<h1>{escape(title)}</h1>", *_plots(folder), *_images(folder)])


def _plots(folder: Path) -> Iterator[str]:
    for name, caption in _PLOTS.items():
        if (folder / name).is_file():
            yield f"<h2>{caption}</h2>{_figure(name, caption)}"


def _images(folder: Path) -> Iterator[str]:
    times: dict[str, list[tuple[str, str]]] = {}
    # Epochs come before the last validation and the test.
    for path in sorted(folder.glob("*.png"), key=lambda path: (not path.name.startswith("epoch-"), path.name)):
        found = _PICTURE.fullmatch(path.name)
        if found is not None:
            times.setdefault(found["image"], []).append((found["time"], path.name))
    for image in sorted(times):
        yield f"<h2>{escape(image.partition('_')[2])}</h2>"
        yield from (_figure(name, time.replace("-", " ")) for time, name in times[image])


def _figure(name: str, caption: str) -> str:
    address = escape(quote(name))
    return (
        f'<div class="card"><h3>{escape(caption)}</h3><a href="{address}"><img src="{address}" alt="{escape(caption)}" '
        'loading="lazy" style="max-width: 100%"></a></div>'
    )
