"""One picture on a light card: lengths, type, what stands around the panels.

Lives here: the card, its title, key and caption; setting and measuring text. Must never live here:
measurements, panels.

Lengths are units of which a card is 800 wide, from its upper left corner: pixels, where a page
shows it at that width. Text stays text, to be searched, copied and read aloud. It is measured in a
wide font that comes with matplotlib, and set in a font of the reader's, which is no wider.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.style import context
from matplotlib.transforms import Affine2D

from .words import COLOURS, KEY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .figures import Figure

WIDTH: Final = 800.0
MARGIN: Final = 28.0
HEAD: Final = 100.0
"""What the title and the key take, above the panels."""

INK: Final = "#1f2933"
PALE: Final = "#52606d"
GRID: Final = "#e4e7eb"
CARD: Final = "#ffffff"
EDGE: Final = "#cbd2d9"

DASHED: Final[dict[str, Any]] = {"linestyle": (0, (4, 2.5)), "linewidth": 1.6}

_LINE: Final = 18.0  # of the caption
_COLUMNS: Final = 108
_FONT: Final = "DejaVu Sans"
_FONTS: Final = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trio_ws",
    "font.family": _FONT,
    "text.color": INK,
    "text.parse_math": False,
}
"""Nothing of the user's own settings may change a picture: the rest is matplotlib's default."""


class Canvas:
    """A card with room for panels of `height`, and the words of `figure` around them."""

    def __init__(self, figure: Figure, height: float) -> None:
        lines = textwrap.wrap(figure.caption, _COLUMNS, break_on_hyphens=False)
        caption = HEAD + height + 14
        self.height = caption + _LINE * len(lines) + MARGIN - 8
        self._title = figure.title
        self._drawing = Drawing(figsize=(WIDTH / 72, self.height / 72), dpi=72)
        inches = Affine2D().scale(1 / 72, -1 / 72).translate(0, self.height / 72)
        self._units = inches + self._drawing.dpi_scale_trans
        agg: Any = FigureCanvasAgg(self._drawing)  # not typed; only measures, never draws
        self._renderer = agg.get_renderer()
        self._card()
        self.text(MARGIN, 40, figure.title, size=22, weight="bold")
        self._key(figure, 72)
        for number, line in enumerate(lines):
            self.text(MARGIN, caption + _LINE * (number + 0.5), line, size=12.5, colour=PALE)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 15,
        colour: str = INK,
        weight: str = "normal",
        align: str = "left",
        ground: str = "none",
    ) -> None:
        """Set one line; `y` is the middle of its small letters, `ground` covers what is below."""
        self._drawing.text(
            x,
            y + 0.36 * size,
            text,
            transform=self._units,
            fontsize=size,
            color=colour,
            weight=weight,
            ha=align,
            va="baseline",
            zorder=5,
            bbox=None if ground == "none" else {"fc": ground, "ec": "none", "pad": 1.5},
        )

    def width_of(self, text: str, *, size: float = 15, weight: str = "normal") -> float:
        """How long the line is where it is longest."""
        probe = self._drawing.text(0, 0, text, fontsize=size, weight=weight)
        width = float(probe.get_window_extent(self._renderer).width)
        probe.remove()
        return width

    def line(self, points: Sequence[tuple[float, float]], colour: str, **how: Any) -> None:
        """Straight from point to point; `how` is matplotlib's."""
        xs, ys = zip(*points, strict=True)
        how = {"linewidth": 1, "solid_capstyle": "butt", "solid_joinstyle": "round", **how}
        self._drawing.add_artist(Line2D(xs, ys, transform=self._units, color=colour, **how))

    def mark(self, x: float, y: float, shape: str, colour: str, **how: Any) -> None:
        """A dot, or what `shape` is with matplotlib."""
        self.line([(x, y)], colour, marker=shape, linestyle="none", **how)

    def save(self, path: Path) -> None:
        """Write the SVG: the same bytes for the same figure."""
        self._drawing.savefig(
            path,
            format="svg",
            facecolor="none",
            metadata={"Date": None, "Creator": None, "Title": self._title},
        )
        path.write_text(path.read_text("utf-8").replace(f"'{_FONT}'", _FONTS), "utf-8")

    def _card(self) -> None:
        """A ground of its own: what is behind the picture may be dark."""
        self._drawing.add_artist(
            FancyBboxPatch(
                (1, 1),
                WIDTH - 2,
                self.height - 2,
                boxstyle="round,pad=0,rounding_size=10",
                transform=self._units,
                facecolor=CARD,
                edgecolor=EDGE,
                linewidth=1,
                zorder=-1,
            )
        )

    def _key(self, figure: Figure, y: float) -> None:
        """What the colours mean, in one line."""
        x = MARGIN
        for kind in figure.kinds:
            weight = "bold" if kind == "ours" else "normal"
            if kind == "raw":
                self.line([(x + 7, y - 9), (x + 7, y + 9)], COLOURS[kind], **DASHED)
            else:
                self.line([(x, y), (x + 14, y)], COLOURS[kind], linewidth=14)
            self.text(x + 21, y, KEY[kind], weight=weight)
            x += 21 + self.width_of(KEY[kind], weight=weight) + 20


def style() -> AbstractContextManager[None]:
    """The context to draw in: matplotlib's defaults and `STYLE`."""
    return context(STYLE, after_reset=True)
