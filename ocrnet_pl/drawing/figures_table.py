"""Tables of figures for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def figures_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> Table:
    """Return a table whose first column has names and whose others have figures, with their ends below each other.

    Texts are printed as they are: a class may have any name, also one that rich takes for markup.

    Args:
        header: Titles of the columns.
        rows: Texts of the rows.
        title: Title of the table.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(*map(escape, header), title=escape(title))
    for row in rows:
        table.add_row(*map(escape, row))
    for column in table.columns[1:]:
        column.justify = "right"
    return table
