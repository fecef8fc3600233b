"""Small sources to pack, and what a packed set has to give back."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample, Supervision, Taxonomy


class Numbered(Source):
    """Tiny generated images that know their number; some may be broken."""

    def __init__(self, length: int = 20, channels: int = 3, side: int = 24, broken: tuple[int, ...] = ()) -> None:
        self.length, self.channels, self.side, self.broken = length, channels, side, broken

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy.build(things=["a", "b"], stuff=["ground"])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise DataError.at(f"{index}.png", "broken")
        generator = torch.Generator().manual_seed(index)
        size = (self.side, self.side + index % 3)
        semantic = torch.randint(0, 3, size, generator=generator, dtype=torch.uint8).numpy()
        instances = np.zeros(size, dtype=np.int32)
        instances[2:9, 3:9] = 1
        return make_sample(
            torch.randint(0, 256, (self.channels, *size), generator=generator, dtype=torch.uint8),
            boxes=torch.rand(2, 4, generator=generator).cumsum(1) * 5,
            labels=[0, 1],
            crowd=[False, index % 2],
            supervision=Supervision(torch.tensor([True, index % 4 > 0]), torch.tensor([True, True, True])),
            semantic=semantic if index % 5 else None,
            instances=instances if index % 5 else None,
            image_id=index,
            path=f"number {index}",
        )


def assert_same(one: Sample, two: Sample) -> None:
    """Both are equal in every field, to the last bit and the types."""
    for name in ("image", "boxes", "labels", "crowd", "semantic", "instances"):
        a, b = getattr(one, name), getattr(two, name)
        assert type(a) is type(b), name
        if a is not None:
            assert a.dtype == b.dtype and a.shape == b.shape, name
            assert torch.equal(a.as_subclass(Tensor), b.as_subclass(Tensor)), name
    assert torch.equal(one.supervision.detection, two.supervision.detection)
    assert torch.equal(one.supervision.semantic, two.supervision.semantic)
    assert (one.image_id, type(one.image_id)) == (two.image_id, type(two.image_id))
    assert one.path == two.path and one.placement == two.placement
    assert one.boxes.canvas_size == two.boxes.canvas_size


def packed_folder(folder: Path, source: Source | None = None, shard_bytes: int = 12_000, **options: Any) -> Path:
    """Pack a source, and return the folder."""
    pack(Numbered() if source is None else source, folder, "test", shard_bytes=shard_bytes, **options)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder, hidden ones included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_coco(root: Path) -> dict[str, str]:
    """Write four images of every kind with boxes, masks, crowds and an image without any; return a source's options."""
    (root / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    picture.save(root / "images" / "plain.jpg", quality=90)
    tags = Image.Exif()
    tags[0x0112] = 6
    picture.save(root / "images" / "turned.jpg", exif=tags)
    picture.save(root / "images" / "as_stored.jpg", exif=tags)
    picture.convert("P").save(root / "images" / "palette.png")
    # Of "turned" the size is that of the upright image, of "as_stored" that of the stored one.
    sizes = {"plain.jpg": (40, 56), "turned.jpg": (56, 40), "as_stored.jpg": (40, 56), "palette.png": (40, 56)}
    images, annotations = [], []
    for number, (name, (height, width)) in enumerate(sizes.items(), 7):
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for x in (3.25, 20.1) if name != "palette.png" else ():
            polygon = [x, 5, x + 12.7, 5, x + 12.7, 19, x, 19]
            entry = {
                "image_id": number,
                "category_id": 1 + (x > 9),
                "bbox": [x, 5, 12.7, 14],
                "area": 170,
                "iscrowd": 0,
            }
            annotations.append(entry | {"id": len(annotations) + 1, "segmentation": [polygon]})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return {"images": str(root / "images"), "annotations": str(root / "instances.json")}


@contextmanager
def served(folder: Path, failures: int = 0) -> Iterator[tuple[str, Counter[str]]]:
    """Serve a folder over HTTP; the first requests of each path may fail. Gives the address and counts the answers."""
    counts: Counter[str] = Counter()
    failed: Counter[str] = Counter()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if failed[self.path] < failures:
                failed[self.path] += 1
                self.send_error(503)
                return
            counts[self.path.lstrip("/")] += 1
            super().do_GET()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", counts
    finally:
        server.shutdown()
        server.server_close()
