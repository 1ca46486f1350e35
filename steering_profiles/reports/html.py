"""Rendering of a report page as a self-contained HTML file without scripts."""

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from steering_profiles.plotting import require_plots
from steering_profiles.reports.blocks import Details, Page, Paragraph, Plot, SideBySide
from steering_profiles.reports.tables import Table
from steering_profiles.reports.text import printable

_KINDS = {"paragraph": Paragraph, "plot": Plot, "table": Table, "details": Details, "side_by_side": SideBySide}


def html_of(page: Page, plots: bool = True) -> str:
    """Return ``page`` as HTML, without its plots if ``plots`` is False. All text is escaped.

    Raises:
        ReportError: the page has plots and matplotlib is not installed.
    """
    environment = Environment(
        loader=PackageLoader("steering_profiles.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    for name, kind in _KINDS.items():
        environment.tests[name] = _is_of(kind)
    return environment.get_template("report.html.j2").render(page=page, svg=_svg, plots=plots)


def _svg(plot: Plot) -> Markup:
    require_plots()
    from steering_profiles.reports.plots.style import to_svg

    # to_svg escapes the texts.
    return Markup(to_svg(plot.draw, plot.name, plot.title))


def _shown(value: object) -> object:
    return printable(value) if type(value) is str else value


def _is_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)
