"""Style of the plots, and their conversion to SVG for an HTML page.

Text and lines take their colours from the page, so that a plot is readable on light and dark backgrounds. The SVG
depends only on the figure: it has no dates or random ids and ignores the user's matplotlib settings.
"""

import re
import warnings
from collections.abc import Callable
from html import escape
from io import StringIO

import matplotlib as mpl
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

# Placeholders, which the SVG replaces with colours of the page. Nothing else in a plot may have these colours.
INK = "#010203"
MUTED = "#040506"
RULE = "#070809"
_OF_PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"}

ORANGE = "#e8710a"
"""Colour of what the profile changes or amplifies, and of what was chosen."""
BLUE = "#3f7fc9"
"""Colour of everything else, and of what is weakened."""
WIDTH = 9.0
"""Width in inches of a plot that fills the page's column."""

LEVELS: Colormap = LinearSegmentedColormap.from_list("levels", ["#4468c0", "#2c8f9b", "#6cbf6b", "#f2d64b"])
"""Colours from low to high values, distinct in greyscale and on light and dark pages."""
WEIGHTS: Colormap = LinearSegmentedColormap.from_list("weights", [(0.25, 0.5, 0.79, 0.0), (0.25, 0.5, 0.79, 1.0)])
"""Colours from transparent for 0 to opaque for 1."""

_SETTINGS = {
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 8.5,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "hatch.color": INK,
    "hatch.linewidth": 0.5,
    "legend.edgecolor": "none",
    "legend.facecolor": "none",
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",  # text stays text, which is small and shown in the reader's fonts
    "text.color": INK,
    "text.parse_math": False,  # a token may be a dollar sign
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7.5,
}


def to_svg(draw: Callable[[], Figure], name: str, title: str) -> str:
    """Draw a figure in this style and return it as an ``<svg>`` element with ``title`` as its accessible name.

    ``name`` must be unique on the page. Matplotlib's settings are restored afterwards.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        style.use(["default", {**_SETTINGS, "svg.hashsalt": name}])
        # Characters missing from the font used for measuring are shown in the reader's fonts.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        out = StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        draw().savefig(out, format="svg", metadata=no_metadata, dpi=130)
    return _for_page(out.getvalue(), name, title)


def bare(axes: Axes) -> None:
    """Remove the frame and the tick marks of ``axes``."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def ink_on(level: float) -> str:
    """Return black or white, whichever is more readable on the colour of ``level`` (0..1) in ``LEVELS``."""
    red, green, blue, _ = LEVELS(level)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _for_page(svg: str, name: str, title: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", body, flags=re.DOTALL
    )  # would apply to the whole page
    body = re.sub(r"<[^>]+>", lambda tag: _tag_for_page(tag[0]), body)
    opening, _, rest = body.partition(">")
    width, height = _numbers(opening, "viewBox")
    label = f'<title id="{name}-title">{escape(title)}</title>'
    start = (
        f'<svg role="img" aria-labelledby="{name}-title" viewBox="0 0 {width} {height}" style="width:{_px(width)}px"'
    )
    return f'{start} xmlns:xlink="http://www.w3.org/1999/xlink">{label}{rest.strip()}'


def _tag_for_page(tag: str) -> str:
    """Adapt one tag to the page. Text between tags is never passed here."""
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)  # not unique on the page, and not referenced
    for stand_in, colour in _OF_PAGE.items():
        tag = tag.replace(stand_in, colour)
    return tag


def _numbers(opening: str, attribute: str) -> tuple[str, str]:
    found = re.search(rf'{attribute}="0 0 ([\d.]+) ([\d.]+)"', opening)
    assert found is not None, opening
    return found[1], found[2]


def _px(points: str) -> str:
    return f"{float(points) * 4 / 3:.0f}"
