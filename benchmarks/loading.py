"""Time the loader against decoding alone and against other loaders, on one core, in one run.

Every figure is a ratio of medians: the contestants take turns, image by image, so that a machine whose speed drifts
slows all of them equally; only the processor's time of this process is counted, so other programs matter little. Each
contestant does what one worker process does up to the finished batch. Run: ``python benchmarks/loading.py``.

All read the same COCO instances set of drawn, textured 640x480 JPEGs, and give batches of 512x512:

- decode: reading and decoding the JPEGs, nothing else; the limit.
- loader: this package's default training pipeline. Its masks are polygons, which it draws.
- boxes: the same without masks.
- warm: the loader with every sample in the shared cache.
- reference: written after the description of torchvision's detection reference: Pillow, pycocotools-like masks for
  each object, v2 transforms on tv_tensors (scale jitter, crop to a fixed size, flip, photometric distortion).
- ultralytics: its own data set and transforms for segmentation, where it was installed by hand (it is AGPL, and no
  part of this package or of its dependencies).

``--workers 1 2 16`` instead times whole passes over the set with so many loading processes. Those figures are in wall
time and need a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from ocrnet_pl.data.cache.shared_cache import Cached, CacheOptions
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.loading.batch_loader import deliver
from ocrnet_pl.data.loading.dataset import PreparedDataset
from ocrnet_pl.data.loading.samplers import Item
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.transforms import Compose, default_train_transforms

WIDTH, HEIGHT = 640, 480
Step = Callable[[list[int]], object]


def draw(root: Path, count: int, objects: int) -> None:
    """Draw scenes with texture and write them as JPEG, with polygons as COCO JSON and as YOLO text."""
    random = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "labels").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        ramp = np.linspace(110, 200, HEIGHT)[:, None, None] * np.ones((1, WIDTH, 3))
        scene = Image.fromarray((ramp * random.uniform(0.6, 1.2, 3)).clip(0, 255).astype(np.uint8))
        brush = ImageDraw.Draw(scene)
        lines: list[str] = []
        for _ in range(objects):
            center = random.uniform(0.1, 0.9, 2) * (WIDTH, HEIGHT)
            angles = np.sort(random.uniform(0, 2 * np.pi, 12))
            radius = random.uniform(12, 90) * random.uniform(0.7, 1, 12)
            corners = center + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
            corners = corners.clip(0, (WIDTH, HEIGHT))
            brush.polygon([tuple(corner) for corner in corners], fill=tuple(random.integers(0, 256, 3).tolist()))
            low, high = corners.min(0), corners.max(0)
            kind = int(random.integers(5))
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": kind,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(np.prod(high - low)),
                    "iscrowd": 0,
                    "segmentation": [corners.round(2).ravel().tolist()],
                }
            )
            lines.append(" ".join([str(kind), *(f"{v:.5f}" for v in (corners / (WIDTH, HEIGHT)).ravel())]))
        noise = sum(
            np.kron(random.normal(0, sigma, (HEIGHT // step, WIDTH // step, 1)), np.ones((step, step, 1)))
            for step, sigma in ((1, 13), (2, 10), (8, 8))
        )
        textured = (np.asarray(scene) + noise).clip(0, 255).astype(np.uint8)
        name = f"{number:05}.jpg"
        Image.fromarray(textured).filter(ImageFilter.GaussianBlur(0.6)).save(root / "images" / name, quality=90)
        (root / "labels" / f"{number:05}.txt").write_text("\n".join(lines) + "\n")
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
    categories = [{"id": i, "name": f"kind{i}"} for i in range(5)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))


def decode(root: Path) -> Step:
    """Return what reads and decodes images."""

    def step(indices: list[int]) -> object:
        return [
            decode_jpeg(torch.from_numpy(np.fromfile(root / "images" / f"{i:05}.jpg", np.uint8)), ImageReadMode.RGB)
            for i in indices
        ]

    return step


def ours(source: Any, size: int) -> Step:
    """Return what makes batches as a worker of this package does."""
    dataset = PreparedDataset(source, (size, size), transforms=Compose(default_train_transforms()))
    turn = 0

    def step(indices: list[int]) -> object:
        nonlocal turn
        turn += 1
        return deliver([dataset[Item(i, (size, size), seed=turn * 10_007 + i)] for i in indices])

    return step


def reference(root: Path, size: int) -> Step:
    """Return what makes batches in the style of torchvision's reference for detection."""
    from faster_coco_eval import mask as mask_api

    content = json.loads((root / "instances.json").read_text())
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    transforms = v2.Compose(
        [
            v2.ScaleJitter((size, size), scale_range=(0.6, 1.6), antialias=True),
            v2.RandomCrop((size, size), pad_if_needed=True, fill={tv_tensors.Image: 114, "others": 0}),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomPhotometricDistort(),
            v2.SanitizeBoundingBoxes(),
        ]
    )

    def one(index: int) -> tuple[Any, dict[str, Any]]:
        image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(root / "images" / f"{index:05}.jpg")))
        own = by_image[index]
        boxes = torch.tensor([a["bbox"] for a in own])
        boxes[:, 2:] += boxes[:, :2]
        masks = [mask_api.decode(mask_api.merge(mask_api.frPyObjects(a["segmentation"], HEIGHT, WIDTH))) for a in own]
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(HEIGHT, WIDTH)),
            "labels": torch.tensor([a["category_id"] for a in own]),
            "masks": tv_tensors.Mask(torch.from_numpy(np.stack(masks))),
        }
        moved: tuple[Any, dict[str, Any]] = transforms(image, target)
        return moved

    def step(indices: list[int]) -> object:
        samples = [one(i) for i in indices]
        return torch.stack([image for image, _ in samples]), [target for _, target in samples]

    return step


def ultralytics(root: Path, size: int) -> Step | None:
    """Return what makes batches as Ultralytics does; None where it is not installed."""
    try:
        from ultralytics.cfg import get_cfg
        from ultralytics.data.dataset import YOLODataset
    except ImportError:
        return None
    dataset = YOLODataset(
        img_path=str(root / "images"),
        imgsz=size,
        augment=True,
        hyp=get_cfg(overrides={"task": "segment", "imgsz": size}),
        data={"names": {i: f"kind{i}" for i in range(5)}, "nc": 5, "channels": 3},
        task="segment",
        batch_size=8,
    )

    def step(indices: list[int]) -> object:
        return dataset.collate_fn([dataset[i] for i in indices])

    return step


def measure(steps: dict[str, Step], order: Sequence[list[int]], rounds: int) -> dict[str, float]:
    """Return each contestant's milliseconds per image; they run in turn, batch by batch."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for indices in order:
            for name, step in steps.items():
                start = time.process_time()
                result = step(indices)
                spent = time.process_time() - start
                del result
                if turn:
                    times[name].append(spent / len(indices) * 1e3)
    return {name: statistics.median(own) for name, own in times.items()}


def loaded_by(source: CocoInstances, processes: int, size: int, batch: int, rounds: int) -> float:
    """Return the images per second that so many loading processes deliver, in the fastest of some passes."""
    data = JointDataModule(train=source, size=size, scales=[1.0], batch_size=batch, num_workers=processes)
    loader = data.train_dataloader()
    fastest = 0.0
    # The processes start in the first pass, which does not count.
    for turn in range(rounds + 1):
        start = time.perf_counter()
        images = sum(len(batch) for batch in loader)
        if turn:
            fastest = max(fastest, images / (time.perf_counter() - start))
    return fastest


def print_workers(source: CocoInstances, options: argparse.Namespace) -> None:
    """Print how fast each of the wanted numbers of processes loads."""
    cores = len(os.sched_getaffinity(0))
    print(
        f"{options.images} images of {WIDTH}x{HEIGHT}, {options.objects} objects each, to {options.size}; {cores} cores"
    )
    print(f"{'processes':>9} {'images per second':>18} {'of the first':>13}")
    first = None
    for processes in options.workers:
        speed = loaded_by(source, processes, options.size, options.batch, options.rounds)
        first = first or speed
        print(f"{processes:9} {speed:18.1f} {speed / first:13.2f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--objects", type=int, default=8, help="an image")
    parser.add_argument("--size", type=int, default=512, help="side of the batches")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of loading processes to time instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root, options.images, options.objects)
        source = CocoInstances("images", "instances.json", root=root)
        if options.workers:
            print_workers(source, options)
            return
        content = json.loads((root / "instances.json").read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        (root / "boxes.json").write_text(json.dumps(content))
        boxes = CocoInstances("images", "boxes.json", semantic=False, root=root)
        cached = Cached(source, CacheOptions(folder=str(root / "cache")))
        steps: dict[str, Step | None] = {
            "decode": decode(root),
            "loader": ours(source, options.size),
            "boxes": ours(boxes, options.size),
            "warm": ours(cached, options.size),
            "reference": reference(root, options.size),
            "ultralytics": ultralytics(root, options.size),
        }
        order = [list(range(i, i + options.batch)) for i in range(0, options.images - options.batch + 1, options.batch)]
        present = {name: step for name, step in steps.items() if step is not None}
        result = measure(present, order, options.rounds)
        print(f"{options.images} images of {WIDTH}x{HEIGHT}, {options.objects} objects each, to {options.size}")
        print(f"{'':12} {'ms per image':>12} {'of decoding':>12} {'of reference':>13}")
        for name, spent in result.items():
            print(f"{name:12} {spent:12.2f} {result['decode'] / spent:12.2f} {result['reference'] / spent:13.2f}")
        for name in steps.keys() - present.keys():
            print(f"{name:12} not installed")


if __name__ == "__main__":
    main()
