"""The table of what a network took from the weights of another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def transfer_table(header: Sequence[str], rows: Iterable[Sequence[str]], file: str) -> Table:
    """Return the table.

    Args:
        header: Titles of the columns.
        rows: Texts of the rows.
        file: File that the weights come from.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, title=f"Weights from {escape(file)}")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
