"""Functions of the page's modules, called in the browser."""

from typing import Any

from playwright.sync_api import Page


def call(page: Page, module: str, function: str, *arguments: Any) -> Any:
    """Return what ``function`` of the page's ``module`` returns for ``arguments``."""
    return page.evaluate(
        "async ([module, name, given]) => (await import(`/page/${module}`))[name](...given)",
        [module, function, list(arguments)],
    )
