"""A picture of results: images, the boxes and the pixels that networks find, and what fusion makes of them.

Drawn scenes for a network that was trained on them, and photos for another one, each with its own network:

    python benchmarks/result_picture.py --output result.png \
      --ckpt_path runs/quickstart/version_0/checkpoints/last.ckpt \
      --photos runs/nuclei/version_0/checkpoints/last.ckpt path/to/nuclei/val/some.png
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torchvision.transforms.v2.functional import resize

from ocrnet_pl import Category, OCRNet, Sample, Taxonomy
from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.drawing.overlays import (
    draw_prediction,
    drawn_categories,
    panel,
    panoptic_to_rgb,
    sheet,
    with_legend,
    write_png,
)
from ocrnet_pl.imaging.geometry import letterbox_sample

SIDE = 288
"""Width of a panel in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a training on drawn scenes")
    parser.add_argument("--output", type=Path, required=True, help="path of the PNG")
    parser.add_argument("--size", type=int, default=160, help="side of the scenes in pixels")
    parser.add_argument("--images", type=int, nargs="*", default=[0], help="numbers of the scenes")
    parser.add_argument("--seed", type=int, default=2, help="seed of the scenes; that of training is 1")
    parser.add_argument("--photos", nargs="+", metavar=("CKPT", "IMAGE"), help="another checkpoint, and images for it")
    options = parser.parse_args()
    source = SyntheticSource(length=max(options.images, default=0) + 1, seed=options.seed, size=options.size)
    # Its colours are those of today, whatever the checkpoint's are.
    drawn = [_row(OCRNet.from_checkpoint(options.ckpt_path), source[each], source.taxonomy) for each in options.images]
    if options.photos:
        network = OCRNet.from_checkpoint(options.photos[0])
        for path in options.photos[1:]:
            drawn.append(_row(network, ImageFolder(path)[0], network.taxonomy))
    shown = list(dict.fromkeys(category for _, categories in drawn for category in categories))
    write_png(with_legend(sheet([row for row, _ in drawn]), shown), options.output)


def _row(network: OCRNet, sample: Sample, taxonomy: Taxonomy) -> tuple[torch.Tensor, list[Category]]:
    """Return the panels of an image side by side, and the categories in them."""
    batch = collate([letterbox_sample(sample, sample.size)])
    with torch.no_grad():
        found = network.eval().postprocessed(network(batch.images), batch.placements)
    assert found.fused is not None
    raw, fused = found.raw[0], found.fused[0]
    none = torch.zeros(len(raw.scores), dtype=torch.bool)
    bare = replace(raw, boxes=raw.boxes[none], scores=raw.scores[none], labels=raw.labels[none], instances=None)
    views = {
        "image": replace(bare, semantic=None),
        "boxes": replace(raw, semantic=None, instances=None),
        "pixels": bare,
        "fused": fused,
    }
    panels = [draw_prediction(sample.image, view, taxonomy, min_side=256) for view in views.values()]
    panels.append(panoptic_to_rgb(fused, taxonomy, min_side=256))
    # Of one width in all rows.
    panels = [resize(each, [round(SIDE * each.shape[1] / each.shape[2]), SIDE]) for each in panels]
    return panel(panels, [*views, "panoptic"]), drawn_categories(taxonomy, sample, [fused])


if __name__ == "__main__":
    main()
