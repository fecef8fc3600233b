"""The page that introduces a network to others: what it finds, how good it is, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocrnet_pl.errors import DataError
from ocrnet_pl.metrics.figures import FIGURES, FUSED, Place, shown_in, value_text
from ocrnet_pl.storage.network_folder import CARD, PICTURES
from ocrnet_pl.structures import Taxonomy

_SUMMARY = "summary.json"
_LIBRARY = "ocrnet-pl"


@dataclass(frozen=True)
class ModelCard:
    """The files of a page.

    Attributes:
        files: Content of each file by its path in the network's folder.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """What is known of a network without its run.

    Attributes:
        taxonomy: Its categories.
        input_size: (height, width) in pixels.
        weights: Number of its weights.
        encoder: Name of its encoder.
        finds: Which results it gives, "boxes" and "pixels".
    """

    taxonomy: Taxonomy
    input_size: tuple[int, int]
    weights: int
    encoder: str
    finds: tuple[str, ...]


def model_card(network: Described, name: str, run: Path | None, pictures: int, license: str | None) -> ModelCard:
    """Return the page of a network.

    Args:
        network: What is known of it.
        name: Its name, such as that of its repository.
        run: Folder of the run that trained it, from which figures and pictures are; None for neither.
        pictures: Largest number of pictures, which show images of the validation set.
        license: Name of the licence, as the hub writes it; None to say nothing.

    Raises:
        DataError: There is no such run, or its summary is damaged.
    """
    summary = None if run is None else _summary(run)
    values, stage = _figures(summary or {})
    shown = [] if run is None else _pictures(run, pictures)
    parts = [
        f"---\n{_metadata(network, values, stage, name, license)}---",
        f"# {name.rpartition('/')[2]}",
        f"One network that finds {' and '.join(network.finds)} in one pass, made with OCRNet-PL. "
        f"{network.weights:,} weights, encoder `{network.encoder}`, trained for inputs of {network.input_size[1]} x "
        f"{network.input_size[0]} pixels; images of any size are scaled to fit.",
        f"## Use\n\n```python\nfrom ocrnet_pl import OCRNet\n\nnetwork = OCRNet.from_pretrained({name!r})\n"
        'prediction = network.predict("photo.jpg")[0]\nprediction.plot()\n```',
        f"## Classes\n\n{_classes(network.taxonomy)}",
    ]
    if summary is not None:
        parts.append(f"## Figures\n\n{_table(values, stage)}\n\n{_training(summary)}")
    if shown:
        lines = "\n\n".join(f"![{path.stem}]({PICTURES}/{path.name})" for path in shown)
        parts.append(f"## Pictures\n\nImages of the validation set: the truth, and what was found.\n\n{lines}")
    files = {CARD: ("\n\n".join(parts) + "\n").encode()}
    return ModelCard(files | {f"{PICTURES}/{path.name}": path.read_bytes() for path in shown})


def _summary(run: Path) -> dict[str, Any]:
    path = run / _SUMMARY
    if not path.is_file():
        raise DataError.at(path, "there is no such file", advice="give the folder of a finished run, or no run")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError.at(path, "it is damaged", advice="give no run") from error
    if not isinstance(content, dict):
        raise DataError.at(path, "it is not the summary of a run", advice="give no run")
    return content


def _figures(summary: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Return the figures of the best checkpoint by their names, and the stage that they are of."""
    for part in ("best", "last"):
        found = summary.get(part)
        if not isinstance(found, Mapping):
            continue
        for stage in ("test", "val"):
            own = {
                key.removeprefix(f"{stage}/"): float(value)
                for key, value in found.items()
                if key.startswith(f"{stage}/") and isinstance(value, int | float)
            }
            if own:
                return own, stage
    return {}, "val"


def _pictures(run: Path, most: int) -> list[Path]:
    """Return the newest pictures of images."""
    found = [path for path in (run / PICTURES).glob("*.png") if any(sign.isdigit() for sign in path.stem)]
    newest = sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return newest[:most]


def _metadata(network: Described, values: Mapping[str, float], stage: str, name: str, license: str | None) -> str:
    """Return the part that the hub reads, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    names = {"boxes": "object-detection", "pixels": "image-segmentation"}
    tasks = [names[word] for word in network.finds]
    task = tasks[0]
    results = [
        EvalResult(task, "own", "the data set of the run", figure.name, round(value, 4), dataset_split=stage,
                   metric_name=figure.title)
        for figure in shown_in(Place.LOG, FIGURES)
        if (value := values.get(FUSED + figure.name, values.get(figure.name))) is not None and not figure.per_class
    ]  # fmt: skip
    data = ModelCardData(
        library_name=_LIBRARY,
        pipeline_tag=task,
        tags=[_LIBRARY, *tasks],
        license=license,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"{data.to_yaml()}\n"


def _classes(taxonomy: Taxonomy) -> str:
    rows = [
        f"| {_cell(c.name)} | {'yes' if c.detection is not None else ''} | {'yes' if c.semantic is not None else ''} |"
        for c in taxonomy.categories
    ]
    return "\n".join(["| class | boxes | pixels |", "|---|---|---|", *rows])


def _table(values: Mapping[str, float], stage: str) -> str:
    rows = []
    for figure in shown_in(Place.TABLE, FIGURES):
        raw, fused = values.get(figure.name), values.get(FUSED + figure.name)
        if not figure.per_class and (raw, fused) != (None, None):
            rows.append(f"| {figure.title} | {value_text(raw)} | {value_text(fused)} |")
    of = {"val": "validation", "test": "test"}[stage]
    if not rows:
        return "The run has measured none."
    return "\n".join([f"On the {of} set, before and after fusion:", "", "| | raw | fused |", "|---|---|---|", *rows])


def _training(summary: Mapping[str, Any]) -> str:
    counts = [f"{summary[key]} {key}" for key in ("epochs", "steps") if isinstance(summary.get(key), int)]
    found = summary.get("versions")
    versions = found if isinstance(found, Mapping) else {}
    used = [f"{name} {_cell(str(versions[name]))}" for name in ("ocrnet_pl", "torch") if name in versions]
    length = " and ".join(counts) or "an unknown time"
    return f"Trained for {length} with {', '.join(used)}." if used else f"Trained for {length}."


def _cell(text: str) -> str:
    """Return text that stays in its cell of a table."""
    return "".join(sign if sign.isprintable() else " " for sign in text).replace("|", "\\|")
