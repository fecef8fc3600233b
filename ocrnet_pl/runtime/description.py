"""What an exported file tells of itself, and how a file is read that may come from anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from ocrnet_pl.errors import ModelFileError
from ocrnet_pl.taxonomy import Taxonomy

KEY = "ocrnet_pl"
"""Name of the description in a file's metadata."""
FORMAT = 1
"""Version of the description."""
_LONGEST = 4 << 20
"""Number of characters above which a description is not read."""
_MOST = 100_000
"""Number above which counts and sides are taken for damage."""


@dataclass(frozen=True)
class Description:
    """What a file tells of itself.

    Attributes:
        version: Version of the package that wrote it.
        raw: Whether it holds the network alone, without letterbox, choice of boxes and fusion.
        channels: Number of channels of the images.
        input_size: (height, width) to which the network's images are scaled and padded.
        detects: Whether it has boxes.
        segments: Whether it has a class for every pixel.
        taxonomy: The categories.
        score_thresholds: By detection class, the score below which its boxes are dropped.
        fusion: The settings of fusion; empty where it does nothing.
        calibration: What ``calibrate`` found of the scores; empty if it was not run.
        precision: With how many bits the network computes, and what that costs; empty for float32.
    """

    version: str
    raw: bool
    channels: int
    input_size: tuple[int, int]
    detects: bool
    segments: bool
    taxonomy: Taxonomy
    score_thresholds: dict[str, float]
    fusion: dict[str, Any]
    calibration: dict[str, Any]
    precision: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """Return the description as a file's metadata."""
        plain = {"format": FORMAT} | {each.name: getattr(self, each.name) for each in fields(self)}
        plain["taxonomy"] = self.taxonomy.to_dict()
        return {KEY: json.dumps(plain, ensure_ascii=False, allow_nan=False)}

    @classmethod
    def of(cls, metadata: dict[str, str], where: str) -> Description:
        """Read the description in a file's metadata.

        Args:
            metadata: The metadata.
            where: The file, for messages.

        Raises:
            ModelFileError: There is none, it is of a later version, or an entry is not what it should be.
        """
        text = metadata.get(KEY)
        if text is None:
            raise ModelFileError(f"{where}: it was not written by `ocrnet export`: it has no description")
        if len(text) > _LONGEST:
            raise ModelFileError(f"{where}: its description has {len(text)} characters; it is damaged")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelFileError(f"{where}: its description is not JSON; export it again") from None
        entry = _Fields(found, where)
        number = entry.whole("format", 1)
        if number != FORMAT:
            raise ModelFileError(f"{where}: its format is {number}, this version reads {FORMAT}; update ocrnet-pl")
        categories = entry.dict("taxonomy")
        try:
            taxonomy = Taxonomy.from_dict(categories)
        except ValueError as error:
            raise ModelFileError(f"{where}: {error}; export it again") from None
        thresholds = entry.dict("score_thresholds")
        size = [_whole(side, f"{where}: input_size", 1) for side in entry.list("input_size")]
        if len(size) != 2:
            raise ModelFileError(f"{where}: input_size: expected two numbers, found {len(size)}; export it again")
        return cls(
            entry.text("version"),
            entry.flag("raw"),
            entry.whole("channels", 1),
            (size[0], size[1]),
            entry.flag("detects"),
            entry.flag("segments"),
            taxonomy,
            {name: _share(value, f"{where}: score_thresholds") for name, value in thresholds.items()},
            entry.dict("fusion"),
            entry.dict("calibration"),
            # Files of before do not have it.
            entry.dict("precision") if "precision" in found else {},
        )


class _Fields:
    """The entries of an object from a file, which may be anything."""

    def __init__(self, found: object, where: str) -> None:
        if not isinstance(found, dict):
            raise ModelFileError(f"{where}: expected an object, found {_kind(found)}; export it again")
        self._found, self._where = found, where

    def get(self, name: str) -> Any:
        if name not in self._found:
            raise ModelFileError(f"{self._where}: {name}: it is missing; export it again")
        return self._found[name]

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str) or not value or len(value) > 1000 or not value.isprintable():
            raise ModelFileError(f"{self._where}: {name}: expected a text, found {_kind(value)}; export it again")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool):
            raise ModelFileError(f"{self._where}: {name}: expected true or false; export it again")
        return value

    def whole(self, name: str, least: int) -> int:
        return _whole(self.get(name), f"{self._where}: {name}", least)

    def list(self, name: str) -> list[Any]:
        value = self.get(name)
        if not isinstance(value, list) or len(value) > _MOST:
            raise ModelFileError(f"{self._where}: {name}: expected a list, found {_kind(value)}; export it again")
        return value

    def dict(self, name: str) -> dict[str, Any]:
        value = self.get(name)
        if not isinstance(value, dict) or len(value) > _MOST:
            raise ModelFileError(f"{self._where}: {name}: expected an object, found {_kind(value)}; export it again")
        return value


def _whole(value: object, where: str, least: int) -> int:
    if type(value) is not int or not least <= value <= _MOST:
        raise ModelFileError(f"{where}: expected a whole number from {least}, found {_kind(value)}; export it again")
    return value


def _share(value: object, where: str) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ModelFileError(f"{where}: expected numbers from 0 to 1, found {_kind(value)}; export it again")
    return float(value)  # type: ignore[arg-type]


def _kind(value: object) -> str:
    return repr(value)[:40] if isinstance(value, int | float | bool) else f"a {type(value).__name__}"
