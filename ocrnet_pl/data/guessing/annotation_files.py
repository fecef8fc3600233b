"""Formats that are recognised by what their annotation files say."""

from __future__ import annotations

import os
from typing import Any

from ocrnet_pl.data.guessing.folder_look import FolderLook, Found, Guess, by_folder, split_folders, split_of
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.data.readers.values import is_text
from ocrnet_pl.data.readers.xml_files import read_xml
from ocrnet_pl.data.readers.yolo_names import is_plain
from ocrnet_pl.data.sources.voc import VOC_CLASSES
from ocrnet_pl.data.split_keys import SPLITS
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import read_text

_EXAMPLES = 200
_LOOKED_AT = 40


def of_json(look: FolderLook) -> Guess | None:
    """Recognise COCO, LVIS, labelme, VIA, Label Studio and BDD100K by a JSON."""
    parts: list[Found] = []
    pages: dict[str, list[str]] = {}
    for folder, names in by_folder(look.ending(".json")).items():
        for base in names[:_LOOKED_AT]:
            name = os.path.join(folder, base)
            content = look.json(name)
            if isinstance(content, dict) and isinstance(content.get("shapes"), list):
                return _labelme(look)
            found = _coco(look, name, content) or _via(look, name, content) or _label_studio(look, name, content)
            if found is not None:
                pages.setdefault(found[0], []).append(name)
                parts.append(found[1])
    if not parts:
        return None
    # Of a detection JSON and a panoptic one of the same images, the latter says more.
    page = "coco_panoptic" if "coco_panoptic" in pages else max(pages, key=lambda page: len(pages[page]))
    own = tuple(part for part in parts if part.path in pages[page])
    return Guess(page, f"{pages[page][0]} is a JSON of this kind", own)


def _coco(look: FolderLook, name: str, content: Any) -> tuple[str, Found] | None:
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        return None
    entries = [entry for entry in content["images"][:_EXAMPLES] if isinstance(entry, dict)]
    given = [str(entry.get("file_name") or entry.get("coco_url") or "") for entry in entries]
    annotations = [entry for entry in content["annotations"] if isinstance(entry, dict)]
    if any("segments_info" in entry for entry in annotations[:1]):
        masks = look.folder_of([str(entry.get("file_name", "")) for entry in annotations[:_EXAMPLES]], name)
        images = look.folder_of([os.path.splitext(one)[0] + ".jpg" for one in given], name) or look.folder_of(
            given, name
        )
        if masks is None or images is None:
            return None
        return "coco_panoptic", Found(name, "CocoPanoptic", {"images": images, "annotations": name, "masks": masks})
    folder = look.folder_of(given, name)
    if folder is None:
        return None
    options: dict[str, Any] = {"images": folder, "annotations": name}
    if any(entry.get("neg_category_ids") for entry in entries):
        return "lvis", Found(name, "Lvis", options)
    pngs = _semantic_pngs(look, folder, name)
    if pngs is not None:
        options |= pngs
    elif not any(entry.get("segmentation") for entry in annotations):
        options["semantic"] = False
    return "coco_instances", Found(name, "CocoInstances", options)


def _semantic_pngs(look: FolderLook, images: str, annotations: str) -> dict[str, Any] | None:
    """Return the options of semantic PNGs of the same images, with the file that names their values."""
    stems = {os.path.splitext(name)[0] for name in look.images.get("" if images == os.curdir else images, ())}
    tables = [name for name in look.ending(".json") if "names" in os.path.basename(name) or "categories" in name]
    for folder, names in look.images.items():
        own = {os.path.splitext(name)[0] for name in names if name.lower().endswith(".png")}
        named = "semantic" in folder.lower() and split_of(folder) == split_of(annotations)
        if named and folder != images and own and own <= stems and tables:
            return {"semantic_masks": folder, "semantic_names": _names_in(look, tables[0])}
    return None


def _names_in(look: FolderLook, table: str) -> Any:
    """Return the path of a JSON of categories; names that are a list or a mapping go into the config themselves."""
    content = look.json(table)
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        content = content["categories"]
    if isinstance(content, list) and content and all(name is None or is_text(name) for name in content):
        return content
    if isinstance(content, dict) and content and all(name is None or is_text(name) for name in content.values()):
        return content if all(key.isdecimal() or key.startswith("#") for key in content) else table
    return table


def _via(look: FolderLook, name: str, content: Any) -> tuple[str, Found] | None:
    if not isinstance(content, dict):
        return None
    images = content.get("_via_img_metadata", content)
    first = next(iter(images.values()), None) if isinstance(images, dict) else None
    given: list[str] = []
    outlined = False
    if isinstance(first, dict) and "filename" in first and "regions" in first:
        entries = [entry for entry in images.values() if isinstance(entry, dict)]
        given = [str(entry.get("filename")) for entry in entries[:_EXAMPLES]]
        outlined = any(
            word in str(entry.get("regions")) for entry in entries for word in ("polygon", "circle", "ellipse")
        )
    elif {"view", "file", "metadata"} <= content.keys() and isinstance(content["file"], dict):
        files = [entry for entry in content["file"].values() if isinstance(entry, dict)]
        given = [str(entry.get("fname")) for entry in files[:_EXAMPLES]]
        outlined = any(
            isinstance(e, dict) and str(e.get("xy"))[:2] in ("[3", "[4", "[7") for e in content["metadata"].values()
        )
    folder = look.folder_of(given, name) if given else None
    if folder is None:
        return None
    options: dict[str, Any] = {"images": folder, "annotations": name}
    return "via", Found(name, "Via", options | ({} if outlined else {"semantic": False}))


def _label_studio(look: FolderLook, name: str, content: Any) -> tuple[str, Found] | None:
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return None
    is_full = isinstance(content[0].get("data"), dict) and isinstance(content[0].get("annotations"), list)
    is_short = "annotator" in content[0] and "annotation_id" in content[0]
    if not is_full and not is_short:
        return None
    tasks = [task.get("data", task) for task in content[:_EXAMPLES] if isinstance(task, dict)]
    given = [value for data in tasks if isinstance(data, dict) for value in data.values() if is_text(value)]
    bases = [value.rpartition("/")[2] for value in given]
    folder = look.folder_of([*bases, *(base.partition("-")[2] for base in bases if "-" in base)], name)
    if folder is None:
        return None
    text = str(content)
    outlined = any(word in text for word in ("polygonlabels", "brushlabels", "ellipselabels", "'points'", "'rle'"))
    options: dict[str, Any] = {"images": folder, "annotations": name}
    return "label_studio", Found(name, "LabelStudio", options | ({} if outlined else {"semantic": False}))


def _labelme(look: FolderLook) -> Guess:
    names = [name for name in look.ending(".json") if '"shapes"' in look.head(name) or _has_shapes(look, name)]
    parts = []
    for folder in split_folders(look, names):
        own = [name for name in names if folder == os.curdir or name.startswith(folder + os.sep)]
        images = look.folder_of(
            [
                os.path.basename(os.path.splitext(name)[0]) + end
                for name in own[:_EXAMPLES]
                for end in (".jpg", ".png", ".jpeg", ".JPG", ".bmp", ".tif")
            ],
            own[0],
        )
        top = folder if images is None or images.startswith(folder) or folder == os.curdir else images
        kinds = {str(s.get("shape_type")) for name in own[:_EXAMPLES] for s in _shapes(look, name)}
        options: dict[str, Any] = {"images": top}
        if top != folder:
            options["annotations"] = folder
        if kinds <= {"rectangle", "point", "line", "linestrip", "points"}:
            options["semantic"] = False
        parts.append(Found(folder, "Labelme", options))
    return Guess("labelme", f"{names[0]} is a JSON with `shapes`, and so are {len(names) - 1} more", tuple(parts))


def _shapes(look: FolderLook, name: str) -> list[dict[str, Any]]:
    content = look.json(name)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    return [shape for shape in shapes if isinstance(shape, dict)] if isinstance(shapes, list) else []


def _has_shapes(look: FolderLook, name: str) -> bool:
    content = look.json(name)
    return isinstance(content, dict) and "shapes" in content


def of_xml(look: FolderLook) -> Guess | None:
    """Recognise CVAT's XML and that of Pascal VOC."""
    names = look.ending(".xml")
    for name in names[:_LOOKED_AT]:
        head = look.head(name)
        if "<annotations>" in head and ("<meta>" in head or "<image " in head):
            text = read_text(look.path(name))
            images = [part.partition('"')[0] for part in text.split(' name="')[1 : _EXAMPLES + 1]]
            folder = look.folder_of(images, name)
            if folder is None:
                continue
            options: dict[str, Any] = {"images": folder, "annotations": name}
            if not any(f"<{kind} " in text for kind in ("polygon", "mask", "ellipse")):
                options["semantic"] = False
            subsets = sorted({part.partition('"')[0] for part in text.split(' subset="')[1:]})
            parts = [Found(subset, "CvatImages", options | {"subset": subset}) for subset in subsets]
            parts = parts if len(parts) > 1 else [Found(name, "CvatImages", options)]
            return Guess("cvat_images", f"{name} is CVAT's XML for images", tuple(parts))
    found = [
        name
        for name in names[:_LOOKED_AT]
        if "<annotation" in look.head(name) and "<annotations" not in look.head(name)
    ]
    return _voc(look, names, found[0]) if found else None


def _voc(look: FolderLook, names: list[str], example: str) -> Guess | None:
    parts = []
    tops = split_folders(look, names)
    for folder in dict.fromkeys(os.path.dirname(name) for name in names):
        own = [os.path.splitext(os.path.basename(name))[0] for name in names if os.path.dirname(name) == folder]
        stems = [stem + end for stem in own[:_EXAMPLES] for end in (".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".bmp")]
        images = look.folder_of(stems, os.path.join(folder, "x"))
        if images is None:
            continue
        above = os.path.dirname(folder)
        options: dict[str, Any] = {"images": images, "annotations": folder or os.curdir}
        for key, name in (("class_masks", "SegmentationClass"), ("object_masks", "SegmentationObject")):
            options[key] = os.path.join(above, name) if os.path.isdir(look.path(os.path.join(above, name))) else None
        labels: set[str] = set()
        for stem in own:
            try:
                objects = read_xml(look.path(os.path.join(folder, stem + ".xml"))).iterfind("object")
            except DataError:  # the source names it, with what is wrong
                continue
            labels |= {(element.findtext("name") or "").strip() for element in objects}
        if not options["class_masks"] or not labels <= {*VOC_CLASSES}:
            options["classes"] = sorted(label for label in labels if label)
        lists = [
            name
            for name in look.ending(".txt")
            if name.startswith(os.path.join(above, "ImageSets") + os.sep)
            and os.path.basename(name) in ("train.txt", "val.txt", "test.txt")
        ]
        kind = os.sep + ("Segmentation" if options["class_masks"] else "Main") + os.sep
        lists = [name for name in lists if kind in name] or lists
        # Folders that are splits themselves go with the list of their split.
        lists = [name for name in lists if split_of(folder) in (None, split_of(name))]
        parts += [Found(name, "PascalVoc", options | {"split": name}) for name in lists] or [
            Found(folder, "PascalVoc", options)
        ]
    reason = f"{example} is an XML of Pascal VOC, and there are {len(names) - 1} more"
    return Guess("voc", reason, tuple(parts)) if parts and tops else None


def of_yolo(look: FolderLook) -> Guess | None:
    """Recognise YOLO by its data.yaml, or by label files and a list of names."""
    for name in look.ending(".yaml", ".yml"):
        try:
            content = yaml_text.load(read_text(look.path(name), most=yaml_text.MOST_BYTES))
        except (DataError, yaml_text.YamlError):
            continue
        if isinstance(content, dict) and "names" in content and any(key in content for key in ("train", "val")):
            splits = [key for key in SPLITS if content.get(key)]
            polygons = "kpt_shape" not in content and _has_polygons(look)
            options = {"data": name} | ({"semantic_from_instances": True} if polygons else {})
            parts = tuple(
                Found(split, "Yolo", options | {"split": split} | _images_elsewhere(look, name, content[split]))
                for split in splits
            )
            return Guess("yolo", f"{name} has `names` and `{splits[0]}`", parts)
    plain = [*look.named("obj.data"), *look.named("classes.txt", "obj.names"), *look.ending(".names")]
    rows = [name for name in look.ending(".txt") if _is_row(look.head(name).partition("\n")[0])]
    if not rows or not plain:
        return None
    from ocrnet_pl.data.readers.yolo_names import read_plain

    name = plain[0]
    outlined = {"semantic_from_instances": True} if _has_polygons(look) else {}
    content = read_plain(look.path(name)) if is_plain(name) else {}
    splits = [split for split in SPLITS if split in content]
    parts = tuple(Found(split, "Yolo", {"data": name, "split": split} | outlined) for split in splits)
    if not parts:
        found = []
        for folder in dict.fromkeys(os.path.dirname(row) for row in rows):
            stems = [os.path.splitext(os.path.basename(r))[0] for r in rows if os.path.dirname(r) == folder][:_EXAMPLES]
            images = look.folder_of([s + end for s in stems for end in (".jpg", ".png", ".jpeg", ".JPG")], rows[0])
            if images is not None:
                places = {"images": images, "labels": folder or os.curdir}
                found.append(Found(folder, "Yolo", {"data": name} | places | outlined))
        parts = tuple(found)
    return Guess("yolo_names", f"{rows[0]} has rows of YOLO, and {name} the names", parts) if parts else None


def _images_elsewhere(look: FolderLook, name: str, entry: Any) -> dict[str, Any]:
    """Return the folders of a split whose images are not where its data.yaml says, but whose labels are."""
    folder = os.path.dirname(name)
    if not is_text(entry) or os.path.exists(look.path(os.path.normpath(os.path.join(folder, entry)))):
        return {}
    labels = os.path.normpath(os.path.join(folder, entry.replace("images", "labels")))
    stems = [os.path.splitext(base)[0] for base in by_folder(look.ending(".txt")).get(labels, ())][:_EXAMPLES]
    images = look.folder_of([stem + end for stem in stems for end in (".jpg", ".png", ".jpeg", ".JPG")], entry)
    return {} if not stems or images is None else {"images": images, "labels": labels}


def _has_polygons(look: FolderLook) -> bool:
    rows = [line for name in look.ending(".txt")[:_EXAMPLES] for line in look.head(name).splitlines()[:20]]
    counts = [len(row.split()) for row in rows if _is_row(row)]
    return any(count > 6 and count % 2 for count in counts)


def _is_row(line: str) -> bool:
    words = line.split()
    if len(words) < 5:
        return False
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return numbers[0].is_integer() and all(-0.1 <= number <= 1.1 for number in numbers[1:5])
