"""``steer keys``: make, list and revoke API keys."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from steering_server.access.keys import ApiKey

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of a server.")

File = Annotated[
    Path,
    typer.Option(
        "--file",
        metavar="FILE",
        envvar="STEER_API_KEYS_FILE",
        help="File of the keys, which steer serve --api-keys-file reads. A running server notices the change.",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the key: letters, digits and . _ -", show_default=False)]

_DAYS = re.compile(r"([0-9]{1,5})d")


@keys.command()
def add(
    name: Name,
    file: File,
    role: Annotated[
        str, typer.Option(metavar="user|admin", help="An admin may change the server's profiles.")
    ] = "user",
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="When the key ends: 2027-01-31, 2027-01-31T12:00Z or, from now, 90d."),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Profile that the key may use. May be repeated. (default: all)"),
    ] = None,
    baseline_only: Annotated[bool, typer.Option("--baseline-only", help="The key may use no profile.")] = False,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="(default: no limit)")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompts and completions. (default: no limit)")
    ] = None,
    max_sequences: Annotated[
        int | None, typer.Option(min=1, help="Sequences that run or wait at the same time. (default: no limit)")
    ] = None,
) -> None:
    """Make a key and print it, once: the file keeps only its hash.

    [dim]steer keys add ci --file keys.json[/]
    [dim]steer keys add ops --role admin --expires 90d --file keys.json[/]
    """
    from pydantic import ValidationError

    from steering_server.access.key_files import added, edit_key_file
    from steering_server.access.keys import ApiKey, generate_secret, hash_secret
    from steering_server.errors import ConfigError

    if baseline_only and profile:
        raise ConfigError("--baseline-only allows no profile; leave it or --profile out")
    secret, now = generate_secret(), datetime.now(UTC).replace(microsecond=0)
    allowed = tuple(dict.fromkeys(profile)) if profile else None
    fields = {
        "name": name,
        "sha256": hash_secret(secret.encode()),
        "role": role,
        "created": now,
        "expires": _parse_end(expires, now),
        "profiles": () if baseline_only else allowed,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "max_sequences": max_sequences,
    }
    try:
        key = ApiKey.model_validate(fields)
    except ValidationError as exc:
        (fault, *_) = exc.errors()
        raise ConfigError(f"{fault['loc'][0]} is {fault['input']!r}: {fault['msg'].lower()}") from exc
    edit_key_file(file, lambda known: added(known, key))
    Console(stderr=True, highlight=False).print(
        f"{escape(name)} is in {escape(str(file))}. This is its key, which cannot be shown again:", soft_wrap=True
    )
    typer.echo(secret)


@keys.command("list")
def list_(
    file: File,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Print names and hashes as STEER_API_KEY_HASHES takes them.")
    ] = False,
) -> None:
    """List the keys of a file, or their hashes."""
    from steering_server.access.key_files import read_key_file

    known = read_key_file(file).keys
    if hashes:
        typer.echo(",".join(f"{key.name}{':admin' * (key.role == 'admin')}={key.sha256}" for key in known))
        return
    now = datetime.now(UTC)
    table = Table(Column("name", no_wrap=True), "role", "created", "expires", "profiles", "limits")
    for key in known:
        table.add_row(
            key.name,
            key.role,
            _shown(key.created),
            f"[bold red]{_shown(key.expires)}, expired[/]" if key.is_expired(now) else _shown(key.expires),
            "all" if key.profiles is None else escape(", ".join(key.profiles)) or "none",
            _limits(key),
        )
    Console().print(table)


@keys.command()
def revoke(name: Name, file: File) -> None:
    """Take a key out of a file; a running server refuses it from then on."""
    from steering_server.access.key_files import edit_key_file, without

    edit_key_file(file, lambda known: without(known, name))
    Console(stderr=True, highlight=False).print(f"{escape(name)} is revoked", soft_wrap=True)


def _parse_end(given: str | None, now: datetime) -> datetime | None:
    from steering_server.errors import ConfigError

    if given is None:
        return None
    days = _DAYS.fullmatch(given)
    try:
        end = now + timedelta(days=int(days[1])) if days else datetime.fromisoformat(given)
    except (ValueError, OverflowError) as exc:
        raise ConfigError(f"--expires is {given!r}; it must be a date such as 2027-01-31, or days such as 90d") from exc
    end = end if end.tzinfo is not None else end.replace(tzinfo=UTC)
    if end <= now:
        raise ConfigError(f"--expires is {given!r}, which is over already")
    return end


def _shown(time: datetime | None) -> str:
    return "-" if time is None else time.strftime("%Y-%m-%d %H:%M")


def _limits(key: "ApiKey") -> str:
    limits = (
        (key.requests_per_minute, "requests a minute"),
        (key.tokens_per_minute, "tokens a minute"),
        (key.max_sequences, "sequences at once"),
    )
    return ", ".join(f"{limit} {what}" for limit, what in limits if limit is not None) or "none"
