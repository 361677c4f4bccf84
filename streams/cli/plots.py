"""Plots, headings and tables side by side on a terminal, at most a hundred columns wide."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import plotext
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

_WIDTH_MOST: Final = 100
_ABREAST_MOST: Final = 5
_LABEL_WIDTH: Final = 25
_FIGURE_WIDTH: Final = 11

_T = TypeVar("_T")


def abreast(console: Console, columns: Sequence[_T]) -> list[Sequence[_T]]:
    """Split a table's columns of figures into as many tables as it takes for each to fit."""
    count = min(_ABREAST_MOST, max(1, (width(console) - _LABEL_WIDTH) // _FIGURE_WIDTH))
    return [columns[start : start + count] for start in range(0, len(columns), count)]


def width(console: Console) -> int:
    """Columns that plots and headings take."""
    return min(console.width, _WIDTH_MOST)


def head(console: Console, title: str) -> None:
    """Print the heading of a part."""
    console.print()
    console.print(Rule(Text(title, "bold"), align="left", style="dim"), width=width(console))


def marker(symbol: str, colour: int) -> Any:
    """Make plotext's mark of a symbol in one of the 256 colours."""
    return plotext.marker(symbol, plotext.pixel(colour))


def canvas(columns: int, height: int, most: float) -> Any:
    """Plotext's one figure, empty and without colours of its own, from 0 to `most` upwards."""
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear.all()
    figure.theme("colorless")
    figure.plot_size(columns, height)
    step = next(step * 10**power for power in range(12) for step in (1, 2, 5) if step * 10**power * 5 >= most)
    figure.ruler("y").lim(0, max(most, 1) * 1.05)
    ticks = list(range(0, int(most) + 1, step))
    figure.ruler("y").ticks(ticks, [f"{tick:,}" for tick in ticks])
    return figure


def drawn(figure: Any) -> Text:
    """Return a plot as text; rich leaves its colours out where there are none."""
    return Text.from_ansi(figure.build().string())
