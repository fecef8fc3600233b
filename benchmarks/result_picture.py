"""A picture of results: drawn scenes, the boxes and the pixels that a network finds, and what fusion makes of them.

Run: ``python benchmarks/result_picture.py --ckpt_path runs/quickstart/version_0/checkpoints/best.ckpt --output a.png``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ocrnet_pl import OCRNet
from ocrnet_pl.data.loading.collate import collate
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a training on drawn scenes")
    parser.add_argument("--output", type=Path, required=True, help="path of the PNG")
    parser.add_argument("--size", type=int, default=96, help="side of the scenes in pixels")
    parser.add_argument("--images", type=int, nargs="+", default=[3, 5], help="numbers of the scenes")
    parser.add_argument("--seed", type=int, default=2, help="seed of the scenes; that of training is 1")
    options = parser.parse_args()
    network = OCRNet.from_checkpoint(options.ckpt_path).eval()
    source = SyntheticSource(length=max(options.images) + 1, seed=options.seed, size=options.size)
    # Its colours are those of today, whatever the checkpoint's are.
    taxonomy, rows, shown = source.taxonomy, [], []
    for number in options.images:
        sample = source[number]
        batch = collate([letterbox_sample(sample, sample.size)])
        with torch.no_grad():
            found = network.postprocessed(network(batch.images), batch.placements)
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
        drawn = [draw_prediction(sample.image, view, taxonomy, min_side=288) for view in views.values()]
        drawn.append(panoptic_to_rgb(fused, taxonomy, min_side=288))
        rows.append(panel(drawn, [*views, "panoptic"]))
        shown += [c for c in drawn_categories(taxonomy, sample, [fused]) if c not in shown]
    write_png(with_legend(sheet(rows), [c for c in taxonomy.categories if c in shown]), options.output)


if __name__ == "__main__":
    main()
