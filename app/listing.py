"""Lists in a terminal of any width: an id or a name that is to be copied is never cut."""

from collections.abc import Collection, Sequence
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP_CELLS: Final = 2
FOLDED_CELLS: Final = 12  # Narrower than this no column is folded.


class Listing:
    """What there is, a row each, the id or the name first.

    Columns whose headings are in `folding` may take several lines. Where the others have no room beside each other, the
    last ones are left out; the first alone, if it is wider than the terminal, is folded.
    """

    def __init__(
        self, headings: Sequence[str], rows: Sequence[Sequence[str | Text]], folding: Collection[str] = ()
    ) -> None:
        self.headings, self.rows, self.folding = headings, rows, folding

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = [self._least_cells(column) for column in range(len(self.headings))]
        shown = len(needed)
        while shown > 1 and sum(needed[:shown]) + GAP_CELLS * (shown - 1) > options.max_width:
            shown -= 1
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP_CELLS - 1), collapse_padding=True, pad_edge=False
        )
        for heading in self.headings[:shown]:
            table.add_column(heading, overflow="fold", no_wrap=heading not in self.folding and shown > 1)
        for row in self.rows:
            table.add_row(*(_plain(cell) for cell in row[:shown]))
        yield table

    def _least_cells(self, column: int) -> int:
        heading = self.headings[column]
        longest = max(_plain(cell).cell_len for cell in (heading, *(row[column] for row in self.rows)))
        return min(longest, FOLDED_CELLS) if heading in self.folding else longest


def _plain(cell: str | Text) -> Text:
    """The cell as it is: what others have named may hold what the terminal's library takes for markup."""
    return cell if isinstance(cell, Text) else Text(cell)
