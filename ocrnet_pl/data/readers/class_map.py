"""The meaning of a mask's pixels: from values or colors to class names, and from there to segmentation classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from os.path import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.json_text import read_json_value
from ocrnet_pl.data.readers.name_tables import read_name_table
from ocrnet_pl.data.readers.values import as_flag, as_whole, is_text, is_whole, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.maps import read_map
from ocrnet_pl.structures import IGNORE_INDEX, Taxonomy

SemanticNames = list[str | None] | dict[int | str, str | None] | str
"""Names by value: a list from 0, a mapping from values or from colors such as "#ff0000", or the path of a file.

The file is a JSON of categories, or a table (:func:`~ocrnet_pl.data.readers.name_tables.read_name_table`).

Null instead of a name ignores the pixels. Value 255 is ignored unless a mapping names it.
"""

_VALUES = 1 << 16


class Legend:
    """Reads masks by the names of their values or colors.

    Args:
        names: The names, see :data:`SemanticNames`.
        option: Name of the option that they come from, for messages.
        root: Folder that the path of a JSON starts from.
        offset: Number added to a pixel's value to get the id that is named.

    Attributes:
        names: The class names, in the order given, each once.
        things: The names that a JSON of categories marks with ``isthing``.
        colors: RGB colors by name, where they are given.

    Raises:
        DataError: There are no names, a value or color is malformed, or the JSON is.
    """

    def __init__(
        self, names: SemanticNames, option: str = "semantic_names", root: str | PathLike[str] = ".", offset: int = 0
    ) -> None:
        self.option = option
        self.things: list[str] = []
        self.colors: dict[str, tuple[int, int, int]] = {}
        entries: Mapping[Any, str | None]
        place = option
        if isinstance(names, str):
            place = join(root, names)
            is_table = place.lower().endswith((".csv", ".txt"))
            entries = read_name_table(place) if is_table else self._read_json(place)
        elif isinstance(names, Mapping):
            entries = names
        else:
            entries = dict(enumerate(names))
        by_color = [isinstance(key, str) and key.startswith("#") for key in entries]
        if any(by_color) and not all(by_color):
            raise DataError.at(place, "values and colors are mixed", advice="map either values or colors")
        self.by_color = any(by_color)
        self._of: dict[int, str | None] = {}
        for key, name in entries.items():
            if name is not None and not is_text(name):
                raise DataError.at(place, f"expected a name or null, found {shown(name)}", field=str(key))
            value = self._color(str(key)) if self.by_color else self._value(key) - offset
            if not self.by_color and not 0 <= value < _VALUES:
                raise DataError.at(place, f"no pixel can have the value {value}", field=str(key))
            if value in self._of:
                raise DataError.at(place, "it occurs more than once", field=str(key))
            self._of[value] = name
            if self.by_color and name is not None:
                self.colors.setdefault(name, (value & 255, value >> 8 & 255, value >> 16))
        self.names = list(dict.fromkeys(name for name in self._of.values() if name is not None))
        if not self.names:
            raise DataError.at(place, "there is no class name", advice="name the values of the masks")
        if not self.by_color:
            self._of.setdefault(IGNORE_INDEX, None)

    def classes(self, path: str | PathLike[str], taxonomy: Taxonomy) -> NDArray[np.uint8]:
        """Read a mask as segmentation classes.

        Args:
            path: Path of the mask.
            taxonomy: The categories, which have the names among their segmentation classes.

        Returns:
            uint8 [H, W], 255 = ignore.

        Raises:
            DataError: The mask cannot be read, or has a value or color without a name.
        """
        return self.apply(read_colors(path) if self.by_color else read_values(path), path, taxonomy)

    def apply(self, values: NDArray[np.int32], path: str | PathLike[str], taxonomy: Taxonomy) -> NDArray[np.uint8]:
        """Turn values, or colors as red + 256 green + 65536 blue, into segmentation classes.

        Args:
            values: int32 [H, W].
            path: Where they come from, for messages.
            taxonomy: The categories, which have the names among their segmentation classes.

        Returns:
            uint8 [H, W], 255 = ignore.

        Raises:
            DataError: A value or color has no name.
        """
        index = {category.name: place for place, category in enumerate(taxonomy.semantic_categories)}
        given = {value: IGNORE_INDEX if name is None else index[name] for value, name in self._of.items()}
        if self.by_color:
            # Few colors: looking each one up in order is faster than a table of all.
            keys = np.array(sorted(given), dtype=np.int32)
            places = np.searchsorted(keys, values).clip(max=len(keys) - 1)
            unknown = keys[places] != values
            classes: NDArray[np.uint8] = np.array([given[key] for key in keys.tolist()], dtype=np.uint8)[places]
        else:
            table = np.full(_VALUES, -1, dtype=np.int16)
            table[list(given)] = list(given.values())
            looked_up = table[values]
            unknown = looked_up < 0
            classes = looked_up.astype(np.uint8)
        if unknown.any():
            value = int(values[unknown][0])
            what = f"color '{_hex(value)}'" if self.by_color else f"value {value}"
            raise DataError.at(
                path,
                f"{int(unknown.sum())} pixels have the {what}, which has no name",
                advice=f"name it in `{self.option}`, or null to ignore it",
            )
        return classes

    def only_void(self, masks: Sequence[str]) -> str | None:
        """Return what to say if masks have only 0 and 255 though 255 has no name; None if they are fine.

        Args:
            masks: Paths of some masks; those that cannot be read are left to their reader.
        """
        if self.by_color or self._of.get(IGNORE_INDEX) is not None or len(self.names) < 2:
            return None
        void = total = 0
        for path in masks:
            try:
                values = read_values(path)
            except DataError:
                continue
            if not np.isin(values, (0, IGNORE_INDEX)).all():
                return None
            void, total = void + int((values == IGNORE_INDEX).sum()), total + values.size
        if not void:
            return None
        others = ", ".join(repr(name) for value, name in self._of.items() if name is not None and value)
        return (
            f"{masks[0]}: 255 holds {void / total:.0%} of the pixels and is ignored, and {others:.200} holds none; "
            f"map the values, such as {{0: {self.names[0]}, 255: {self.names[1]}}}, in `{self.option}`"
        )

    def _value(self, key: Any) -> int:
        try:
            return int(key)
        except (TypeError, ValueError, OverflowError):
            raise DataError.at(
                self.option, "expected a pixel value or a color such as '#ff0000'", field=f"{shown(key)}"
            ) from None

    def _color(self, key: str) -> int:
        if not re.fullmatch("#[0-9a-fA-F]{6}", key):
            raise DataError.at(self.option, "expected a color such as '#ff0000'", field=f"{shown(key)}")
        red, green, blue = bytes.fromhex(key[1:])
        return red | green << 8 | blue << 16

    def _read_json(self, path: str) -> dict[int, str | None]:
        """Read categories: a list of objects with id and name, or an object that contains one as ``categories``."""
        content = read_json_value(path)
        if isinstance(content, dict):
            content = content.get("categories")
        if not isinstance(content, list) or not content:
            raise DataError.at(path, "expected a list of categories", field="categories")
        entries: dict[int, str | None] = {}
        for position, category in enumerate(content):
            where = f"categories[{position}]"
            if not isinstance(category, dict):
                raise DataError.at(path, f"expected an object, found {shown(category)}", field=where)
            number, name = as_whole(category.get("id")), category.get("name")
            if number is None or number in entries:
                raise DataError.at(
                    path, f"expected a unique integer, found {shown(category.get('id'))}", field=f"{where}.id"
                )
            if not is_text(name):
                raise DataError.at(path, f"expected text, found {shown(name)}", field=f"{where}.name")
            entries[number] = name
            thing = as_flag(category.get("isthing"))
            if thing is None:
                found = shown(category.get("isthing"))
                raise DataError.at(path, f"expected 0 or 1, found {found}", field=f"{where}.isthing")
            if thing:
                self.things.append(name)
            color = category.get("color")
            if isinstance(color, list) and len(color) == 3 and all(is_whole(c) and 0 <= c < 256 for c in color):
                self.colors[name] = (int(color[0]), int(color[1]), int(color[2]))
        return entries


def read_values(path: str | PathLike[str]) -> NDArray[np.int32]:
    """Read a mask of values: palettes as indices, and colors that are all grey as levels.

    Args:
        path: Path of the mask.

    Returns:
        int32 [H, W], 0 to 65535.

    Raises:
        DataError: The mask is missing, broken, too large, or has colors.
    """
    pixels = _read(path)
    if pixels.ndim == 3:
        grey = pixels[..., 0]
        if pixels.shape[2] > 2 and not ((pixels[..., 1] == grey) & (pixels[..., 2] == grey)).all():
            raise DataError.at(
                path, "the mask has colors, not values", advice="name its colors, such as '#ff0000', instead of values"
            )
        pixels = grey
    if pixels.size and (pixels.min() < 0 or pixels.max() >= _VALUES):
        raise DataError.at(path, f"a value is outside 0 to {_VALUES - 1}", advice="save the mask with 8 or 16 bits")
    return pixels.astype(np.int32)


def read_colors(path: str | PathLike[str]) -> NDArray[np.int32]:
    """Read a mask of colors; transparency is dropped.

    Args:
        path: Path of the mask.

    Returns:
        int32 [H, W], red + 256 green + 65536 blue.

    Raises:
        DataError: The mask is missing, broken or too large.
    """
    pixels = _read(path, palette=True)
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        grey = (pixels if pixels.ndim == 2 else pixels[..., 0]).astype(np.int32)
        return grey * 0x010101
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red | green << 8 | blue << 16


def read_ids(path: str | PathLike[str]) -> NDArray[np.int32]:
    """Read a map of ids, 0 = nothing: values of 8, 16 or 32 bits, or red + 256 green + 65536 blue.

    Args:
        path: Path of the map.

    Returns:
        int32 [H, W].

    Raises:
        DataError: The map is missing, broken or too large.
    """
    pixels = _read(path)
    if pixels.ndim == 2:
        return pixels.astype(np.int32)
    if pixels.shape[2] == 2:
        return pixels[..., 0].astype(np.int32)
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red | green << 8 | blue << 16


def _read(path: str | PathLike[str], *, palette: bool = False) -> NDArray[Any]:
    found = read_map(path)
    if found.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV"):
        raise DataError.at(path, f"mode {found.mode} contains no labels", advice="save it as a PNG of 8 or 16 bits")
    pixels = found.pixels
    if palette and found.palette is not None:
        colors: NDArray[Any] = found.palette[pixels if pixels.ndim == 2 else pixels[..., 0]]
        return colors
    return pixels.astype(np.uint8) * 255 if palette and found.mode == "1" else pixels


def _hex(value: int) -> str:
    return f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16:02x}"
