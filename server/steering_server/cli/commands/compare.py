"""``steer compare``: the completions of one prompt under several arms, side by side."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings

if TYPE_CHECKING:
    from steering_client import AsyncSteeringClient, Comparison
    from steering_server.config import ServerSettings
    from steering_server.generation.backend import Backend

    Ask = Callable[[AsyncSteeringClient], Awaitable[Comparison]]


def compare(
    prompt: Annotated[str, typer.Argument(help=r"Prompt to complete; \n stands for a new line.")],
    arms: Annotated[
        str, typer.Option(help="Arms, separated by commas: baseline, a profile, several as a+b, with a strength a@0.5.")
    ] = ("baseline,parentheses"),
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens to generate.")] = 16,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Sampling temperature; 0 is greedy decoding.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers, which all arms share.")] = 0,
    url: Annotated[
        str | None,
        typer.Option(help="URL of a running server to ask, with or without /v1. Without it, the model is loaded here."),
    ] = None,
    profiles: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of your own profiles, in addition to the shipped ones.")
    ] = None,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    r"""Complete a prompt under several arms and show where the completions diverge.

    Prints the completions side by side and, for each pair of arms, the first
    token that differs and how likely each arm finds the other's tokens.

    [dim]steer compare '#print the string 123\nprint(str(str(str(123' --max-tokens 1[/]
    [dim]steer compare "def add(a, b):" --url http://127.0.0.1:8000[/]
    """
    from steering_server.config import load_settings
    from steering_server.errors import ConfigError, ServerError

    try:
        from steering_client import SteeringClientError
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"steer compare needs the package steering-client ({exc}); "
            "install it with: pip install steering-client, or in a checkout: pip install ./client"
        ) from exc
    given = model_settings(model, dtype, device_map, max_memory, cache_dir)
    given |= {"profiles": profiles} if profiles is not None else {}
    if url is not None and given:
        raise ConfigError(
            f"--url asks a running server, which has its own {', '.join(given)}; leave out --url or those options"
        )
    text = prompt.replace(r"\n", "\n")
    names = [arm.strip() for arm in arms.split(",")]

    async def ask(client: "AsyncSteeringClient") -> "Comparison":
        return await client.compare(text, names, max_tokens=max_tokens, temperature=temperature, seed=seed, logprobs=0)

    try:
        comparison = asyncio.run(_remote(url, ask)) if url is not None else _here(load_settings(**given), names, ask)
    except SteeringClientError as exc:
        raise ServerError(str(exc)) from exc
    _show(Console(), text, comparison)


async def _remote(url: str, ask: "Ask") -> "Comparison":
    from steering_client import AsyncSteeringClient

    async with AsyncSteeringClient(url) as client:
        return await ask(client)


def _here(settings: "ServerSettings", arms: Sequence[str], ask: "Ask") -> "Comparison":
    """Load the model into this process and ask it.

    Raises:
        LabelError: an arm is not named as profiles and their strength are.
        ProfileNotFound: an arm names a profile that does not exist. Both are checked before the model is loaded.
    """
    from steering_profiles.labels import parse_label
    from steering_profiles.store import Catalogue
    from steering_server.cli.in_process import load_backend
    from steering_server.logs import configure_logs

    configure_logs("warning")
    catalogue = Catalogue.open(settings.profiles)
    for arm in arms:
        for name in parse_label(arm).names:
            catalogue[name]
    return asyncio.run(_in_process(load_backend(settings), ask))


async def _in_process(backend: "Backend", ask: "Ask") -> "Comparison":
    from steering_server.cli.in_process import client_in_process

    async with client_in_process(backend) as client:
        return await ask(client)


def _show(console: Console, prompt: str, comparison: "Comparison") -> None:
    console.print(Text(prompt, style="dim"))
    same = len(comparison.common_prefix)
    panels = []
    for arm, text in comparison.texts.items():
        body = Text(text[:same])
        body.append(text[same:], style="bold yellow")
        panels.append(Panel(body, title=Text(arm), title_align="left"))
    console.print(Columns(panels, equal=True, expand=True))
    for warning in comparison.warnings:
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    for pair in comparison.pairs:
        one, other = pair.arms
        if pair.first_difference is None:
            console.print(f"{one} and {other} are the same: {len(comparison.texts[one])} characters", markup=False)
            continue
        console.print(f"{one} and {other} diverge at token {pair.first_difference + 1}", markup=False, soft_wrap=True)
        for whose, under in (pair.logprobs or {}).items():
            totals = ", ".join(f"{sum(values):.2f} under {arm}" for arm, values in under.items())
            console.print(f"  log-probability of {whose}'s tokens: {totals}", markup=False, soft_wrap=True)
