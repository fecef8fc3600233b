"""Faults to plant in the small data set of the data check: each returns the image and the field that it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.doctor_data import of_image, pixels_of, rolled, set_pixels


def big(content: dict[str, Any], index: int) -> int:
    """Return the place of the largest object of an image that its edges do not cut."""
    height, width = (content["images"][index][side] for side in ("height", "width"))
    inside = [
        i
        for i in of_image(content, index)
        if (b := content["annotations"][i]["bbox"])[0] > 1
        and b[1] > 1
        and b[0] + b[2] < width - 1
        and b[1] + b[3] < height - 1
    ]
    return max(inside, key=lambda i: content["annotations"][i]["area"])


def plant_partly_outside(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = big(content, 3)
    box = content["annotations"][place]["bbox"]
    content["annotations"][place]["bbox"] = [box[0], box[1], 140 - box[0], box[3]]
    return 3, f"annotations[{place}].bbox"


def plant_wholly_outside(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 4)[0]
    content["annotations"][place]["bbox"] = [200, 20, 30, 30]
    return 4, f"annotations[{place}].bbox"


def plant_negative_corner(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 4)[1]
    content["annotations"][place]["bbox"] = [-30, -20, 50, 50]
    return 4, f"annotations[{place}].bbox"


def plant_no_area(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 5)[1]
    # With a mask, the box of the mask would stand for it.
    content["annotations"][place]["bbox"][2] = 0
    content["annotations"][place]["segmentation"] = []
    return 5, f"annotations[{place}].bbox"


def plant_negative_area(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 6)[0]
    content["annotations"][place]["bbox"][3] *= -1
    content["annotations"][place]["segmentation"] = []
    return 6, f"annotations[{place}].bbox"


def plant_nan(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 7)[0]
    content["annotations"][place]["bbox"][0] = float("nan")
    return 7, f"annotations[{place}].bbox"


def plant_duplicate(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = big(content, 8)
    content["annotations"].append(content["annotations"][place] | {"id": 9999})
    return 8, f"annotations[{len(content['annotations']) - 1}].bbox"


def plant_near_duplicate(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    entry = content["annotations"][big(content, 8)]
    x, y, width, height = entry["bbox"]
    other = {key: value for key, value in entry.items() if key != "segmentation"}
    content["annotations"].append(other | {"id": 9999, "bbox": [x + 0.4, y, width, height + 0.3]})
    return 8, f"annotations[{len(content['annotations']) - 1}].bbox"


def plant_box_without_mask(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 9)[0]
    content["annotations"][place]["segmentation"] = []
    return 9, f"annotations[{place}].bbox"


def plant_box_on_background(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    """A box whose mask is elsewhere, on a spot where nothing is."""
    place = big(content, 10)
    taken = np.zeros((96, 128), dtype=bool)
    for i in of_image(content, 10):
        taken |= pixels_of(content["annotations"][i])
    x, y = next((x, y) for y in range(0, 84, 2) for x in range(0, 116, 2) if not taken[y : y + 12, x : x + 12].any())
    content["annotations"][place]["bbox"] = [x, y, 12, 12]
    return 10, f"annotations[{place}].bbox"


def plant_pixels_without_a_box(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = big(content, 10)
    box = content["annotations"][place]["bbox"]
    content["annotations"][place]["bbox"] = [box[0], box[1], box[2], box[3] * 0.4]
    return 10, ""


def plant_shift(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    for place in of_image(content, 11):
        entry = content["annotations"][place]
        set_pixels(entry, rolled(pixels_of(entry), 5, -3))
    return 11, ""


def plant_mask_of_another_size(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 12)[0]
    set_pixels(content["annotations"][place], pixels_of(content["annotations"][place])[::2, ::2])
    return 12, f"annotations[{place}].segmentation.size"


def plant_image_of_another_size(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    path = root / "train" / content["images"][13]["file_name"]
    Image.open(path).resize((64, 48)).save(path)
    return 13, ""


def plant_unknown_category(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 14)[0]
    content["annotations"][place]["category_id"] = 77
    return 14, f"annotations[{place}].category_id"


def plant_unknown_image(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 15)[0]
    content["annotations"][place]["image_id"] = 12345
    return -1, f"annotations[{place}].image_id"


def plant_truncated(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    path = root / "train" / content["images"][16]["file_name"]
    path.write_bytes(path.read_bytes()[:1500])
    return 16, ""


def plant_no_image(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    (root / "train" / content["images"][17]["file_name"]).write_text("no image at all")
    return 17, ""


def plant_empty_file(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    (root / "train" / content["images"][17]["file_name"]).write_bytes(b"")
    return 17, ""


def plant_missing_image(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    (root / "train" / content["images"][18]["file_name"]).unlink()
    return 18, "images[18].file_name"


def plant_climbing_path(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    content["images"][18]["file_name"] = "../val/val_000.jpg"
    return -1, "images[18].file_name"


def plant_exif(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    """Turned by half, which no size tells."""
    return _turn(root, content, 3)


def plant_exif_quarter(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    return _turn(root, content, 6)


def plant_exif_with_turned_size(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    """The size in the JSON is that of the turned image, the labels are those of the unturned one."""
    entry = content["images"][19]
    entry["height"], entry["width"] = entry["width"], entry["height"]
    boxes = [content["annotations"][place]["bbox"] for place in of_image(content, 19)]
    assert max(box[0] + box[2] for box in boxes) > 100
    for place in of_image(content, 19):
        content["annotations"][place]["segmentation"] = []
    return _turn(root, content, 6)


def _turn(root: Path, content: dict[str, Any], orientation: int) -> tuple[int, str]:
    path = root / "train" / content["images"][19]["file_name"]
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, quality=95, exif=exif)
    return 19, ""
