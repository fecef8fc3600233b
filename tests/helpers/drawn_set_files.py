"""Tiny sound data sets of annotation tools, for the tests that damage their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.drawn_data import HEIGHT, WIDTH, outline, picture, png_text, write_json


def write_labelme(root: Path) -> None:
    for stem in "ab":
        picture(root / f"{stem}.png")

    def shape(label: str, kind: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
        return {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}} | more

    drawn = png_text(np.full((3, 4), 255, dtype=np.uint8))
    shapes = [
        shape("cat", "polygon", outline(2, 3, 7, 9)),
        shape("dog", "rectangle", [[8, 2], [14, 6.5]]),
        shape("dog", "circle", [[12, 6], [12, 4]], group_id=1),
        shape("soil", "mask", [[1, 1], [4, 3]], mask=drawn),
    ]
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    write_json(root / "a.json", {"version": "5", "imagePath": "a.png", "shapes": shapes} | size)
    write_json(root / "b.json", {"imagePath": "b.png", "shapes": shapes[:1]})


def write_cvat(root: Path) -> None:
    for stem in "ab":
        picture(root / f"images/{stem}.png")
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    shapes = (
        '<polygon label="cat" points="2,3;7,3;7,9;2,9"/><mask label="cat" left="1" top="2" width="3" height="2" '
        'rle="1,5"/><box label="dog" xtl="8" ytl="2" xbr="14" ybr="6.5" rotation="30"/>'
        '<ellipse label="dog" cx="12" cy="6" rx="3" ry="2"><attribute name="iscrowd">false</attribute></ellipse>'
    )
    images = f'<image id="0" name="a.png" {size}>{shapes}</image><image id="1" name="b.png" {size}></image>'
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")


def write_via(root: Path) -> None:
    for stem in "ab":
        picture(root / f"{stem}.png")
    shapes = [
        {"name": "polygon", "all_points_x": [2, 7, 7, 2], "all_points_y": [3, 3, 9, 9]},
        {"name": "rect", "x": 8, "y": 2, "width": 6, "height": 4.5},
        {"name": "ellipse", "cx": 12, "cy": 6, "rx": 3, "ry": 2, "theta": 0.5},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"type": "cat"}} for shape in shapes]
    content = {f"{stem}.png": {"filename": f"{stem}.png", "size": 5, "regions": regions} for stem in "ab"}
    write_json(root / "via.json", {"_via_img_metadata": content})


def write_label_studio(root: Path) -> None:
    for stem in "ab":
        picture(root / f"{stem}.png")
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    bits = format(WIDTH * HEIGHT * 4, "032b") + "00111" + "1111" * 4 + "100" + format(WIDTH * HEIGHT * 4 - 1, "016b")
    bits += "1" * 8 + "0" * 4
    brush = [int(bits[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(bits), 8)]
    values = [
        ("polygonlabels", {"points": [[10, 25], [35, 25], [35, 75], [10, 75]]}),
        ("rectanglelabels", {"x": 40, "y": 10, "width": 20, "height": 30, "rotation": 0}),
        ("ellipselabels", {"x": 70, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 20}),
        ("brushlabels", {"format": "rle", "rle": brush}),
    ]
    results = [{"type": kind, "from_name": "tag", "value": value | {kind: ["cat"]}} | size for kind, value in values]
    tasks = [
        {"id": number, "data": {"image": f"/data/upload/1/{stem}.png"}, "annotations": [{"result": results[number:]}]}
        for number, stem in enumerate("ab")
    ]
    write_json(root / "tasks.json", tasks)


def write_object_masks(root: Path) -> None:
    drawn = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    drawn[3:9, 2:7] = 255
    for stem in "ab":
        picture(root / f"images/{stem}.png")
    (root / "masks").mkdir()
    for name in ("1_cat_0", "1_dog_0", "2_dog_x"):
        Image.fromarray(drawn).save(root / f"masks/{name}.png")
    write_json(root / "tasks.json", [{"id": n, "data": {"image": f"{s}.png"}} for n, s in enumerate("ab", 1)])


def write_named_masks(root: Path) -> None:
    drawn = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    drawn[3:9, 2:7] = (250, 50, 83)
    picture(root / "a.png")
    Image.fromarray(drawn).save(root / "a_L.png")
    (root / "class_dict.csv").write_text("name, r, g, b\nbackground, 0, 0, 0\ncat, 250, 50, 83\n")
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\n"
    (root / "labelmap.txt").write_text(lines)


def write_yolo_names(root: Path) -> None:
    picture(root / "obj_train_data/a.png")
    (root / "obj_train_data/a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "train.txt").write_text("obj_train_data/a.png\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")


def write_lvis(root: Path) -> None:
    images = []
    for number, stem in enumerate("ab"):
        picture(root / f"{stem}.png")
        lists = {"neg_category_ids": [2 + number], "not_exhaustive_category_ids": [1] * number}
        size = {"height": HEIGHT, "width": WIDTH}
        images.append({"id": number, "file_name": f"{stem}.png"} | size | lists)
    mask = [[2, 3, 7, 3, 7, 9, 2, 9]]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [2, 3, 5, 6], "segmentation": mask} for n in range(2)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(("cat", "dog", "cow"), 1)]
    write_json(root / "lvis.json", {"images": images, "annotations": annotations, "categories": categories})


def write_open_images(root: Path) -> None:
    for stem in "ab":
        picture(root / f"{stem}.png")
    rows = "a,/m/1,0.1,0.35,0.25,0.75,0\na,/m/2,0.5,1,0,0.5,1\n"
    (root / "boxes.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n" + rows)
    (root / "names.csv").write_text("/m/1,Cat\n/m/2,Dog\n")
    (root / "verified.csv").write_text("ImageID,LabelName,Confidence\nb,/m/2,0\n")
