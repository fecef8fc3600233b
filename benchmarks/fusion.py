"""Raw, merged by rule, fused, and fused with calibrated settings, on the same predictions.

    python benchmarks/fusion.py --config configs/nuclei.yaml --ckpt_path K --data.root path/to/nuclei

Settings are chosen on one half of the validation images and measured on the other, both ways, then on all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ocrnet_pl import OCRNet
from ocrnet_pl.calibration.raw_results import Collected, collect
from ocrnet_pl.calibration.search import SCORES, Calibration, Calibrator, measure, split_in_two
from ocrnet_pl.cli.running import build
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.storage.files import write_json
from ocrnet_pl.structures import Prediction, Taxonomy


def main() -> None:
    """Measure one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--trust", nargs="*", default=[], help="packages whose classes the checkpoint may name")
    options, words = parser.parse_known_args()
    network = OCRNet.from_checkpoint(options.ckpt_path, trust=options.trust)
    post = network.postprocess
    assert isinstance(post, FusionPostProcess)
    trust = ["--trust", *options.trust] if options.trust else []
    data = build(["calibrate", "--ckpt_path", options.ckpt_path, *trust, *words]).datamodule
    loader = data.validation_sample(options.images)
    items = list(collect(network, post, loader, options.images))
    taxonomy = network.taxonomy
    choice = Calibration(rounds=options.rounds, seed=options.seed + 1)
    halves = split_in_two([item.truth.image_id for item in items], options.seed)
    results: dict[str, object] = {}
    for name, (chosen, judged) in {"second half": halves, "first half": halves[::-1]}.items():
        start = time.perf_counter()
        own = [items[row] for row in chosen]
        settings = Calibrator(own, taxonomy, post.settings, post.heuristic, choice).run().settings
        seconds = time.perf_counter() - start
        results[name] = show(name, [items[row] for row in judged], post, settings, taxonomy, seconds)
    start = time.perf_counter()
    settings = Calibrator(items, taxonomy, post.settings, post.heuristic, choice).run().settings
    results["all"] = show("all (chosen on them)", items, post, settings, taxonomy, time.perf_counter() - start)
    if options.json:
        write_json(options.json, results)


def show(
    name: str,
    items: list[Collected],
    post: FusionPostProcess,
    settings: FusionSettings,
    taxonomy: Taxonomy,
    seconds: float,
) -> dict[str, object]:
    """Print and return the figures of each way of merging on some images."""
    calibrated = FusionPostProcess()
    calibrated.settings = settings
    raw_names = {
        "raw_boxes": tuple(c.name for c in taxonomy.detection_categories),
        "raw_pixels": tuple(c.name for c in taxonomy.semantic_categories),
    }
    cautious = FusionPostProcess()
    cautious.settings = replace(settings, **raw_names)
    heat = settings.temperature
    ways: dict[str, Callable[[Collected], Prediction]] = {
        "raw (by rule)": lambda item: post.merge(item.detections, item.semantic(heat), taxonomy),
        "fused before": lambda item: post.fuse(item.detections, item.semantic(heat), taxonomy),
        "fused calibrated": lambda item: calibrated.fuse(item.detections, item.semantic(heat), taxonomy),
        "all classes raw": lambda item: cautious.fuse(item.detections, item.semantic(heat), taxonomy),
    }
    print(f"\n{name}: {len(items)} images, chosen in {seconds:.0f} s\n{settings}")
    print(f"{'':18}" + "".join(f"{key:>10}" for key in SCORES))
    table: dict[str, object] = {}
    for way, merge in ways.items():
        figures = measure([merge(item) for item in items], items, taxonomy)
        table[way] = {key: figures[key] for key in SCORES}
        print(f"{way:18}" + "".join(f"{figures[key]:10.4f}" for key in SCORES))
    return {"figures": table, "settings": settings.to_dict(), "seconds": seconds}


if __name__ == "__main__":
    main()
