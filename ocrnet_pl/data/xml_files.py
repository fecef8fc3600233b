"""Reading XML annotations: nothing but elements and text, with errors that name the file and the field."""

from __future__ import annotations

import math
from os import PathLike
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from ocrnet_pl.data.errors import DataError

MAX_BYTES = 64 << 20
"""Larger files are refused: no image has so many objects."""


def read_xml(path: str | PathLike[str]) -> Element:
    """Read an XML file without a document type.

    A document type could define entities that expand to gigabytes or name other files, so it is refused.

    Args:
        path: The file.

    Returns:
        The root element.

    Raises:
        DataError: The file is missing, empty, too large, not XML, or declares a document type.
    """

    def refuse(*_: object) -> None:
        raise DataError.at(path, "it declares a document type, which is not read", advice="remove the <!DOCTYPE> part")

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError.at(path, f"the file cannot be read ({error.strerror})", advice="check the path") from error
    if len(data) > MAX_BYTES:
        raise DataError.at(path, f"the file has more than {MAX_BYTES >> 20} MiB")
    if not data.strip():
        raise DataError.at(path, "the file is empty", advice="export it again")
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ParseError, AssertionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError.at(path, f"this is not valid XML ({error})", advice="export it again") from error


class XmlFields:
    """Typed access to an element's children; a missing or wrong one is an error that names it.

    Args:
        path: The file, for messages.
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

    def number(self, element: Element, where: str, name: str) -> float:
        """Return a child's text as a finite number that is not negative.

        Raises:
            DataError: There is none, or it is something else.
        """
        text = self.text(element, where, name)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise self.error(f"{where}.{name}", f"expected a number of at least 0, found {text!r:.60}")
        return value

    def flag(self, element: Element, where: str, name: str) -> bool:
        """Return a child's text as 0 or 1; False where there is no such child.

        Raises:
            DataError: It is something else.
        """
        found = element.find(name)
        if found is None:
            return False
        text = (found.text or "").strip()
        if text not in ("0", "1"):
            raise self.error(f"{where}.{name}", f"expected 0 or 1, found {text!r:.60}")
        return text == "1"
