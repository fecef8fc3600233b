"""Reading XML annotations: only elements and text, with errors that name the file and the field."""

from __future__ import annotations

import math
from os import PathLike
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from ocrnet_pl.data.readers.values import MOST, as_flag, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import PER_IMAGE, read_bytes

_DEPTH = 100
_ELEMENTS = 200_000
"""Largest number of elements: no image has that many objects, and an element takes far more memory than its text."""


def read_xml(path: str | PathLike[str], most: int = PER_IMAGE, elements: int = _ELEMENTS) -> Element:
    """Read an XML file without a document type.

    A document type could define entities that expand to gigabytes or name other files, so it is refused.

    Args:
        path: Path of the file.
        most: Largest number of bytes.
        elements: Largest number of elements.

    Returns:
        The root element.

    Raises:
        DataError: The file is missing, empty, too large, not XML, nested too deeply, or declares a document type.
    """
    depth = count = 0

    def refuse(*_: object) -> None:
        raise DataError.at(path, "it declares a document type, which is not read", advice="remove the <!DOCTYPE> part")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > _DEPTH or count > elements:
            raise DataError.at(path, f"it has more than {elements} elements, or nests them more than {_DEPTH} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    data = read_bytes(path, most=most)
    if not data.strip():
        raise DataError.at(path, "the file is empty", advice="export it again")
    try:
        parser.Parse(data, True)
        return builder.close()
    # A lookup fails for an encoding that Python does not know.
    except (expat.ExpatError, ParseError, AssertionError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError.at(path, f"this is not valid XML ({error})", advice="export it again") from error


class XmlFields:
    """Typed access to an element's children; a missing or wrong one is an error that names it.

    Args:
        path: Path of the file, for messages.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path

    def error(self, field: str, problem: str, advice: str = "") -> DataError:
        """Return an error that names the file and the field."""
        return DataError.at(self.path, problem, field=field, advice=advice)

    def child(self, element: Element, where: str, name: str) -> Element:
        """Return a child element.

        Raises:
            DataError: There is none.
        """
        found = element.find(name)
        if found is None:
            raise self.error(f"{where}.{name}", "missing")
        return found

    def text(self, element: Element, where: str, name: str) -> str:
        """Return a child's text.

        Raises:
            DataError: There is none.
        """
        value = (self.child(element, where, name).text or "").strip()
        if not value:
            raise self.error(f"{where}.{name}", "expected text, found nothing")
        return value

    def number(self, element: Element, where: str, name: str, least: float = 0) -> float:
        """Return a child's text as a finite number that is not below the least.

        Raises:
            DataError: There is none, or it is something else.
        """
        text = self.text(element, where, name)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= MOST:
            raise self.error(f"{where}.{name}", f"expected a number from {least:g} to {MOST:g}, found {shown(text)}")
        return value

    def flag(self, element: Element, where: str, name: str) -> bool:
        """Return what a child's text says (:func:`~ocrnet_pl.data.readers.values.as_flag`); False if there is none.

        Raises:
            DataError: It is something else.
        """
        found = element.find(name)
        if found is None:
            return False
        value = as_flag(found.text)
        if value is None:
            raise self.error(f"{where}.{name}", f"expected 0 or 1, found {shown(found.text)}")
        return value
