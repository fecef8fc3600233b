"""The whole check: read every image once, find the faults, write the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from os.path import join
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ocrnet_pl.data.loading.lost_workers import TakenUp, watched
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.table import Table
from ocrnet_pl.data.sources.voc import PascalVoc
from ocrnet_pl.data.sources.yolo import Yolo
from ocrnet_pl.doctor.classes import category_faults, rare_classes
from ocrnet_pl.doctor.coco_recovery import salvage, write_salvaged
from ocrnet_pl.doctor.examine import Examiner, Record, Split, kind_of
from ocrnet_pl.doctor.findings import Finding, FindingLog, Kind, Level
from ocrnet_pl.doctor.fingerprints import SIDE, similar_pairs
from ocrnet_pl.doctor.result import IMAGES_PER_WORKER, Examined, Recipe, Result
from ocrnet_pl.doctor.split_faults import annotation_file, split_faults
from ocrnet_pl.doctor.statistics import SplitStatistics
from ocrnet_pl.drawing.progress import Progress
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size


def open_split(name: str, recipe: Recipe, log: FindingLog, folder: Path) -> Split | None:
    """Make a split's source; an error of its reader becomes a finding.

    Args:
        name: Name of the split.
        recipe: How to make its source.
        log: Log for the findings.
        folder: Folder for temporary files.

    Returns:
        The split, without the faulty entries where the format allows it; None if it cannot be opened.
    """
    try:
        return Split(name, recipe.make())
    except DataError as error:
        problem = error
    if issubclass(recipe.source_class, CocoInstances):
        root = recipe.arguments.get("root") or "."
        images, annotations = (join(root, str(recipe.arguments[key])) for key in ("images", "annotations"))
        rest = salvage(name, images, annotations)
        if rest is not None:
            copy = folder / f"{name}.json"
            write_salvaged(rest, copy)
            try:
                source = recipe.make(annotations=str(copy.resolve()))
            except DataError as error:
                problem = DataError(str(error).replace(str(copy.resolve()), annotations))
            else:
                for finding in rest.findings:
                    log.add(finding)
                return Split(name, source, (str(copy.resolve()), annotations), rest.numbers, len(rest.findings))
            for finding in rest.findings:
                log.add(finding)
    lenient = _open_leniently(name, recipe, problem, log)
    if lenient is not None:
        return lenient
    first, _, text = str(problem).partition(": ")
    kind = Kind.IMAGE_MISSING if "there is no file" in text else kind_of(str(problem))
    log.add(Finding(kind, name, f"{text or first} (the split could not be opened)", file=first if text else ""))
    return None


def _open_leniently(name: str, recipe: Recipe, problem: DataError, log: FindingLog) -> Split | None:
    """Open labels with values that training refuses, so that each becomes a finding."""
    kinds = Yolo | PascalVoc | LabelledFolder | Table
    if not issubclass(recipe.source_class, kinds) or not recipe.arguments.get("strict", True):
        return None
    try:
        source = recipe.make(strict=False)
    except DataError:
        return None
    faults = source.faults if isinstance(source, PascalVoc) else [problem]
    for fault in faults:
        file, _, rest = str(fault).partition(": ")
        field, found, text = rest.partition(": ")
        if not found:
            field, text = "", rest
        kind = kind_of(str(fault)) if isinstance(source, PascalVoc) else Kind.ANNOTATION_BROKEN
        log.add(Finding(kind, name, f"{text} (training would stop here)", file=file, field=field))
    return Split(name, source, refused=len(faults) if isinstance(source, PascalVoc) else 0)


def check(
    recipes: Mapping[str, Recipe],
    *,
    input_size: Size,
    object_limit: Callable[[Size], int] | None,
    widest: float | None = None,
    workers: int,
    limit: int | None,
    log: FindingLog,
    folder: Path,
) -> Result:
    """Examine all splits.

    Args:
        recipes: How to make the source of each split.
        input_size: (height, width) of the network's input.
        object_limit: Returns the largest number of boxes that the network returns for an image of a given size; None
            for any number.
        widest: The longest side at the input size, in pixels, that the network can give a box; None for any.
        workers: Number of loading processes; 0 for none.
        limit: Largest number of images to examine per split, evenly spread; None for all.
        log: Log for the findings.
        folder: Folder for temporary files; it has to exist as long as the sources are used.
    """
    splits = [split for name, recipe in recipes.items() if (split := open_split(name, recipe, log, folder)) is not None]
    for finding in category_faults([(split.name, split.source.taxonomy) for split in splits]):
        log.add(finding)
    chosen = [_spread(len(split.source), limit) for split in splits]
    examined = []
    with Progress() as progress:
        for split, indices in zip(splits, chosen, strict=True):
            work = progress.add(f"reading {split.name}", len(indices))
            result = Examined(split, SplitStatistics(split.name, split.source.taxonomy, object_limit, widest), indices)
            result.thumbnails = np.zeros((len(indices), SIDE, SIDE), dtype=np.uint8)
            for position, record in enumerate(_look(split, indices, input_size, workers)):
                _take(result, position, record, log)
                work.advance()
            _conclude(result, log)
            examined.append(result)
        for one, two in combinations(examined, 2):
            work = progress.add(f"comparing {one.split.name} with {two.split.name}")
            for finding in _shared_images(one, two):
                log.add(finding)
            work.finish()
    for split in splits:
        if isinstance(split.source, Yolo):
            for path in split.source.labels_without_image():
                log.add(
                    Finding(
                        Kind.UNKNOWN_ID, split.name, "there is no image of its name", file=path, level=Level.WARNING
                    )
                )
    complete = all(len(indices) == len(split.source) for split, indices in zip(splits, chosen, strict=True))
    train = next((entry.statistics for entry in examined if entry.split.name == "train"), None)
    if train is not None and complete:
        for finding in rare_classes(train, [e.statistics for e in examined if e.statistics is not train]):
            log.add(finding)
    if complete:
        for finding in _unlisted(examined):
            log.add(finding)
    return Result(examined, log, complete)


def _spread(count: int, limit: int | None) -> NDArray[np.int64]:
    if limit is None or limit >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))


def _as_they_are(records: list[Record]) -> list[Record]:
    return records


def _look(split: Split, indices: NDArray[np.int64], input_size: Size, workers: int) -> Iterator[Record]:
    """Yield the records in order; only a few batches wait, so memory does not grow with the number of images."""
    examiner = Examiner(split, input_size)
    workers = min(workers, len(indices) // IMAGES_PER_WORKER)
    examiner.taken_up = TakenUp(workers)
    loader: DataLoader[Any] = DataLoader(
        examiner, sampler=indices.tolist(), batch_size=8, num_workers=workers, collate_fn=_as_they_are
    )
    for records in watched(loader, examiner.taken_up, split.source):
        yield from records


def _take(examined: Examined, position: int, record: Record, log: FindingLog) -> None:
    examined.statistics.add(record.measures)
    examined.paths.append(record.path)
    examined.digests.append(record.digest)
    examined.modes.append(record.mode)
    examined.mapped.append(None if record.measures is None else record.measures.pixels is not None)
    if record.thumbnail is not None:
        examined.thumbnails[position] = record.thumbnail
    if record.evidence is not None:
        examined.verdict.add(record.evidence)
    if record.by_rows is not None:
        examined.by_rows += (record.by_rows.sum(), len(record.by_rows))
    if record.edges is not None:
        examined.edges += record.edges
    for finding in record.findings:
        log.add(finding)


def _conclude(examined: Examined, log: FindingLog) -> None:
    """Add the findings that only the whole split can give."""
    name, statistics = examined.split.name, examined.statistics

    def add(kind: Kind, position: int, message: str, **more: Any) -> None:
        index = int(examined.indices[position])
        log.add(Finding(kind, name, message, image=examined.paths[position], index=index, **more))

    if (guess := examined.verdict.guess()) is not None:
        examined.reading, why = guess
        text = f"{examined.reading.value.text}: {why}; other findings on boxes may follow from it"
        add(Kind.BOX_FORMAT, 0, text, file=annotation_file(examined))
    for finding in split_faults(examined):
        log.add(finding)
    if statistics.maps:
        for position, mapped in enumerate(examined.mapped):
            if mapped is False:
                add(Kind.NO_MAP, position, "it has no map of classes")
    colors = Counter("color" if mode in ("RGB", "RGBA", "P", "YCbCr") else mode for mode in examined.modes if mode)
    if len(colors) > 1:
        usual = colors.most_common(1)[0][0]
        for position, mode in enumerate(examined.modes):
            if mode and ("color" if mode in ("RGB", "RGBA", "P", "YCbCr") else mode) != usual:
                add(Kind.GREYSCALE, position, f"its pixels are {_MODES.get(mode, mode)}")
    if statistics.tiny:
        share = statistics.tiny / max(1, int(statistics.boxes.sum()))
        text = f"{statistics.tiny:,} boxes ({share:.1%}) have a side under 4 pixels at the input size"
        log.add(Finding(Kind.SMALL_BOXES, name, text))
    if statistics.wide:
        text = f"{statistics.wide:,} boxes have a side of more than {statistics.widest:g} pixels at the input size"
        log.add(Finding(Kind.WIDE_BOXES, name, text))
    if statistics.over_limit.images:
        log.add(Finding(Kind.MANY_OBJECTS, name, str(statistics.over_limit)))
    first: dict[bytes, int] = {}
    for position, digest in enumerate(examined.digests):
        if digest and (earlier := first.setdefault(digest, position)) != position:
            other = (name, int(examined.indices[earlier]))
            add(Kind.IMAGE_REPEATED, position, f"a copy of {examined.paths[earlier]}", other=other)


_MODES = {"L": "greyscale", "LA": "greyscale", "I;16": "16-bit greyscale", "1": "black and white", "CMYK": "CMYK"}


def _shared_images(one: Examined, two: Examined) -> Iterator[Finding]:
    """Yield the images that two splits have in common."""
    evaluation = one.split.name != "train"
    place = {digest: position for position, digest in enumerate(one.digests) if digest}
    exact: set[int] = set()
    for position, digest in enumerate(two.digests):
        if digest and digest in place:
            exact.add(position)
            text = f"the same image as {one.paths[place[digest]]} in {one.split.name}"
            level = Level.WARNING if evaluation else None
            yield _pair(Kind.SAME_IMAGE, one, place[digest], two, position, text, level)
    # Without contrast, all images look alike.
    rows = [np.flatnonzero(split.thumbnails.any((1, 2))) for split in (one, two)]
    rows[1] = rows[1][~np.isin(rows[1], list(exact))]
    if not all(len(part) for part in rows):
        return
    load = (lambda i: one.image(int(rows[0][i])), lambda i: two.image(int(rows[1][i])))
    for first, second, agreement in similar_pairs(one.thumbnails[rows[0]], two.thumbnails[rows[1]], load):
        text = f"nearly the same as {one.paths[rows[0][first]]} in {one.split.name} (details agree by {agreement:.0%})"
        yield _pair(Kind.SIMILAR_IMAGE, one, int(rows[0][first]), two, int(rows[1][second]), text, None)


def _pair(kind: Kind, one: Examined, first: int, two: Examined, second: int, text: str, level: Level | None) -> Finding:
    return Finding(
        kind,
        two.split.name,
        text,
        image=two.paths[second],
        index=int(two.indices[second]),
        other=(one.split.name, int(one.indices[first])),
        level=level,
    )


def _unlisted(examined: list[Examined]) -> Iterator[Finding]:
    """Yield the image files in the folders of the splits that belong to no split."""
    listed = {str(Path(path).resolve()) for entry in examined for path in entry.paths}
    seen: set[Path] = set()
    for entry in examined:
        folders = {Path(path).parent for path in entry.paths if path}
        for folder in sorted(folders):
            if folder in seen or not folder.is_dir():
                continue
            seen.add(folder)
            suffixes = {Path(path).suffix.lower() for path in entry.paths}
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in suffixes and path.is_file() and str(path.resolve()) not in listed:
                    yield Finding(Kind.UNLISTED, entry.split.name, "no split lists it", image=str(path))
