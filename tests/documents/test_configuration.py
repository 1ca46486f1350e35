"""docs/configuration.md lists the settings that there are: flag, variable, default."""

import re
from typing import Any

import typer
from pydantic import ByteSize, TypeAdapter

from steering_server.cli import app as command_line
from steering_server.config import PREFIX, ServerSettings
from tests.documents.reading import read

SIZE = TypeAdapter(ByteSize)
_DEFAULT = re.compile(r" \(default: (?P<default>.*)\)$")


def serve_options() -> dict[str, Any]:
    """The options of ``steer serve``, by setting."""
    serve = typer.main.get_command(command_line).commands["serve"]
    return {option.name: option for option in serve.params if option.name != "help"}


def table_row(name: str, option: Any) -> str:
    flags = "/".join((*option.opts, *option.secondary_opts))
    default = _DEFAULT.search(option.help)
    meaning = _DEFAULT.sub("", option.help)
    return f"| `{flags}` | `{PREFIX}{name.upper()}` | {default['default'] if default else '-'} | {meaning} |"


def table() -> list[str]:
    return [table_row(name, option) for name, option in serve_options().items()]


def test_every_setting_is_a_flag_and_a_variable():
    assert set(serve_options()) == set(ServerSettings.model_fields)


def test_the_document_lists_exactly_the_settings_that_exist():
    lines = read("docs/configuration.md").splitlines()
    assert [line for line in lines if line.startswith("| `--")] == table()


def test_the_defaults_in_the_help_are_the_defaults():
    for name, option in serve_options().items():
        default, told = ServerSettings.model_fields[name].default, _DEFAULT.search(option.help)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert told is not None, name
            read = SIZE.validate_python if isinstance(default, ByteSize) else float
            assert read(told["default"]) == default
