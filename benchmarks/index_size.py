"""Open the index of a generated COCO set of a million images: seconds and memory, first and later, parent and worker.

The image files are empty: only their names are looked for. Each opening is a process of its own. Run:
``python benchmarks/index_size.py`` (needs about 1 GB of disk and a million inodes in the temporary folder).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER_SIZE = 10_000

OPEN = """
import json, multiprocessing, os, resource, sys, time
from ocrnet_pl.data.sources.coco import CocoInstances

def memory(field):
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(field)) / 1e6

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

def worker(source, before, answer):
    for index in range(0, len(source), 1000):
        source.identity(index), source.image_boxes(index)
    answer.put(memory("Private_Dirty") - before)

if __name__ == "__main__":
    root, masks = sys.argv[1], sys.argv[2] == "masks"
    imports = peak()
    start = time.perf_counter()
    source = CocoInstances("images", "instances.json", semantic=masks, root=root, index_cache=root + "/cache")
    spent = time.perf_counter() - start
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    idle = context.Process(target=worker, args=([], 0.0, answer))
    idle.start()
    before = answer.get()
    idle.join()
    process = context.Process(target=worker, args=(source, before, answer))
    process.start()
    shared = answer.get()
    process.join()
    print(json.dumps({"images": len(source), "seconds": spent, "imports": imports, "peak": peak(), "worker": shared}))
"""


def generate(root: Path, count: int, boxes: int, masks: bool) -> None:
    """Write the JSON and the empty images."""
    random = np.random.default_rng(0)
    names = [f"{i // FOLDER_SIZE:04}/{i:08}.jpg" for i in range(count)]
    for first in range(0, count, FOLDER_SIZE):
        folder = root / "images" / f"{first // FOLDER_SIZE:04}"
        folder.mkdir(parents=True)
        for name in names[first : first + FOLDER_SIZE]:
            (root / "images" / name).touch()
    with open(root / "instances.json", "w") as file:
        file.write('{"categories": ' + json.dumps([{"id": i, "name": f"kind{i}"} for i in range(80)]))
        file.write(', "images": [')
        file.write(
            ", ".join(
                f'{{"id": {i}, "file_name": "{name}", "height": 480, "width": 640}}' for i, name in enumerate(names)
            )
        )
        file.write('], "annotations": [')
        for first in range(0, count, FOLDER_SIZE):
            corners = random.integers(0, 400, (FOLDER_SIZE * boxes, 2)).tolist()
            sides = random.integers(5, 80, (FOLDER_SIZE * boxes, 2)).tolist()
            rows = []
            for place, ((x, y), (w, h)) in enumerate(zip(corners, sides, strict=True)):
                number = first * boxes + place
                mask = f', "segmentation": [[{x}, {y}, {x + w}, {y}, {x + w}, {y + h}, {x}, {y + h}]]' if masks else ""
                rows.append(
                    f'{{"id": {number}, "image_id": {number // boxes}, "category_id": {number % 80}, "iscrowd": 0, '
                    f'"bbox": [{x}, {y}, {w}, {h}], "area": {w * h}{mask}}}'
                )
            file.write((", " if first else "") + ", ".join(rows))
        file.write("]}")


def main() -> None:
    """Print one row per opening."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help=f"a multiple of {FOLDER_SIZE}")
    parser.add_argument("--boxes", type=int, default=3, help="an image")
    parser.add_argument("--masks", action="store_true", help="a polygon for each box")
    options = parser.parse_args()
    if options.images < FOLDER_SIZE or options.images % FOLDER_SIZE:
        parser.error(f"--images: expected a multiple of {FOLDER_SIZE}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root, options.images, options.boxes, options.masks)
        size = (root / "instances.json").stat().st_size / 1e9
        print(f"{options.images:,} images, {options.boxes} boxes each, a JSON of {size:.2f} GB; memory in GB")
        print(f"{'':8}{'seconds':>9}{'imports':>9}{'peak':>9}{'own of a worker':>17}")
        for name in ("first", "later"):
            command = [sys.executable, "-c", OPEN, folder, "masks" if options.masks else "boxes"]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{name:8}{row['seconds']:9.1f}{row['imports']:9.2f}{row['peak']:9.2f}{row['worker']:17.3f}")


if __name__ == "__main__":
    main()
