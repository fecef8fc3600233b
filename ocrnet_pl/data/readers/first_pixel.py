"""Whether the corners of boxes in VOC's XML count pixels from 1, as VOC does, or from 0, as most tools do."""

from __future__ import annotations

from xml.etree.ElementTree import Element

_TOOLS = ("unknown", "roboflow", "labelimg", "cvat", "labelme", "label studio", "makesense", "vott")


class FirstPixel:
    """Gathers what the files say about how their boxes count.

    Attributes:
        reason: Why they count from 0; empty for no reason.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._voc = False

    def add_file(self, content: Element) -> None:
        """Look for the marks of VOC and of tools.

        Args:
            content: The root element of a file.
        """
        database = (content.findtext("source/database") or "").lower()
        folder = (content.findtext("folder") or "").lower()
        self._voc = self._voc or "voc" in database or folder.startswith("voc")
        if content.find("path") is not None:
            self._because("they have the <path> that labelling tools write")
        elif any(tool in database for tool in _TOOLS):
            self._because(f"their <database> is {database!r:.60}, as labelling tools write")

    def add_box(self, corners: tuple[float, float, float, float]) -> None:
        """Look at the corners of a box, as they are in the file."""
        if min(corners[:2]) == 0:
            self._because("a box starts at 0")
        elif any(not float(corner).is_integer() for corner in corners):
            self._because("corners have fractions")

    def guess(self) -> int:
        """Return 0 or 1."""
        return 1 if self._voc or not self.reason else 0

    def _because(self, reason: str) -> None:
        self.reason = self.reason or reason
