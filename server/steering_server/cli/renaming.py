"""Former names of options, which are still accepted with a warning."""

import logging
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand

_log = logging.getLogger(__name__)


def renaming(options: Mapping[str, str]) -> type[TyperCommand]:
    """Return a command class that replaces ``options`` (former name to present name) and warns about each."""

    class Renaming(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            return super().parse_args(ctx, [*map(_renamed, args[:end]), *args[end:]])

    def _renamed(argument: str) -> str:
        name, separator, value = argument.partition("=")
        if name not in options:
            return argument
        _log.warning("%s is deprecated; use %s", name, options[name])
        return options[name] + separator + value

    return Renaming
