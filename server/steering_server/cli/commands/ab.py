"""``steer ab``: the arms compared on a data set, with grades, paired statistics and a report."""

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.interrupts import report_saved
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.progress import rated_bars

if TYPE_CHECKING:
    from steering_ab.analysis.result import Result
    from steering_ab.asking.asker import AskSettings
    from steering_ab.graders.judge import JudgeModel
    from steering_ab.runs.run import Run
    from steering_client import AsyncSteeringClient
    from steering_server.generation.backend import Backend

_JUDGE = "Judge"
_SAMPLING = "Answers"


def ab(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="File with an item on each line: JSON Lines or CSV.")
    ],
    arms: Annotated[
        str | None,
        typer.Option(
            help="Arms, separated by commas, the reference first: baseline, a profile, a+b, a@0.5; for a server that "
            "is not a steering server names of its models. (default: baseline,parentheses)"
        ),
    ] = None,
    grader: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:ARGUMENT]",
            help="Grader: exact, normalised, contains, startswith, regex, number, json, choice, length, python, judge, "
            "or one of your own. May be repeated. (default: what suits each item)",
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="What must hold, such as 'parentheses - baseline >= 0.05' or 'parentheses - baseline > -0.02 on "
            "tag:other': the lower end of the interval is compared. If it does not, the status is 1. May be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the run, which keeps answers and grades as they come. (default: one below ab-runs that is "
            "named after the data set and the settings, so that the same command goes on where it was stopped)",
        ),
    ] = None,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Grade the answers in the run's folder (--out) again, and ask nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a line that cannot be used, instead of leaving it out.")
    ] = False,
    detect: Annotated[
        float, typer.Option(help="Difference of rates to plan for: the report says how many items show it.")
    ] = 0.05,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=1, help="Maximum number of tokens of an answer, unless the item has its own.", rich_help_panel=_SAMPLING
        ),
    ] = 16,
    temperature: Annotated[
        float,
        typer.Option(min=0, max=2, help="Sampling temperature; 0 is greedy decoding.", rich_help_panel=_SAMPLING),
    ] = 0.0,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, help="Answers of each arm to each item, with random numbers of their own.", rich_help_panel=_SAMPLING
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the random numbers, which all arms share.", rich_help_panel=_SAMPLING)
    ] = 0,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send a prompt as the message of a user.", rich_help_panel=_SAMPLING)
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Maximum number of requests at once.")] = 16,
    url: Annotated[
        str | None,
        typer.Option(help="URL of a running server to ask, with or without /v1. Without it, the model is loaded here."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the API key of the server at --url.")
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(help="URL of the judge's server, any with OpenAI's API.", rich_help_panel=_JUDGE),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Name of the judge's model.", rich_help_panel=_JUDGE)] = None,
    judge_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Environment variable with the API key of the judge's server.", rich_help_panel=_JUDGE
        ),
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
    """Compare arms on a data set: grades, paired statistics, and a report to decide by.

    Every item is answered under all arms in one request and graded. The report
    shows rates with intervals, paired differences with exact tests, and the
    items that flipped: report.html, report.md, report.json and items.csv.

    [dim]steer ab examples/brackets.jsonl[/]
    [dim]steer ab questions.csv --arms baseline,parentheses --require 'parentheses - baseline >= 0.05'[/]
    [dim]steer ab questions.jsonl --url http://127.0.0.1:8000 --temperature 0.7 --repeats 5[/]
    """
    from steering_ab.asking.asker import AskSettings
    from steering_ab.asking.labels import labelled
    from steering_ab.datasets import read_dataset
    from steering_ab.graders.planning import plan_grading
    from steering_ab.requirements import parse_requirement
    from steering_ab.runs.run import Run
    from steering_server.cli.ab_output import require_all, show, warn_of_faults
    from steering_server.errors import ConfigError

    given = model_settings(model, dtype, device_map, max_memory, cache_dir)
    given |= {"profiles": profiles} if profiles is not None else {}
    if url is not None and given:
        raise ConfigError(
            f"--url asks a running server, which has its own {', '.join(given)}; leave out --url or those options"
        )
    if (judge_url is None) != (judge_model is None):
        raise ConfigError("a judge needs both --judge-url and --judge-model")
    if regrade and out is None:
        raise ConfigError("--regrade needs --out, the folder of the run whose answers are graded again")
    api_key, judge_key = _key("--api-key-env", api_key_env), _key("--judge-key-env", judge_key_env)
    requirements = [parse_requirement(text) for text in require or ()]
    names = _arms(arms, out if regrade else None)
    console, errors = Console(), Console(stderr=True)
    judge, judge_client = _judge(judge_url, judge_model, judge_key, concurrency, regrade)
    read = read_dataset(dataset)
    usable, gradings = plan_grading(read.require_usable(strict=strict), grader or (), judge)
    usable.require_usable(strict=strict)
    warn_of_faults(errors, usable)
    run = Run(
        dataset=usable,
        arms=labelled(names),
        gradings=gradings,
        settings=AskSettings(temperature, max_tokens, seed, chat),
        repeats=repeats,
        concurrency=concurrency,
        requirements=requirements,
        detect=detect,
        about=_about(judge),
        out=out,
        regrade=regrade,
    )
    if out is not None:
        require_writable_folder("--out", out)
    backend = None if regrade or url is not None else _load(given, names)

    with report_saved(lambda: _kept(run)), rated_bars() as bars:
        result = asyncio.run(_result(run, backend, url, api_key, judge_client, bars))
    assert result.folder is not None, "a command keeps its run"
    paths = result.write(result.folder)
    show(console, result)
    console.print(f"wrote {paths['html']}", soft_wrap=True, markup=False, highlight=False)
    require_all(result)


def _arms(arms: str | None, recorded_in: Path | None) -> tuple[str, ...]:
    """Return the arms that are named, or else those of the run in the folder, or else the default."""
    if arms is None and recorded_in is not None:
        from steering_ab.runs.folder import RunFolder

        recorded = RunFolder(recorded_in).recorded()
        if recorded is not None:
            return tuple(recorded.settings.arms.values())
    return tuple(arm.strip() for arm in ("baseline,parentheses" if arms is None else arms).split(","))


def _key(option: str, variable: str | None) -> str | None:
    """Return the API key in an environment variable.

    Raises:
        ConfigError: there is no such variable, or it is empty.
    """
    from steering_server.errors import ConfigError

    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigError(f"{option} names {variable!r}, an environment variable that is not set")
    return key


def _judge(
    url: str | None, model: str | None, key: str | None, concurrency: int, regrade: bool
) -> "tuple[JudgeModel | None, AsyncSteeringClient | None]":
    from steering_ab.asking.judging import judge_of

    return judge_of(url, model, key, concurrency) if url is not None and model is not None else (None, None)


def _load(given: Mapping[str, Any], arms: Sequence[str]) -> "Backend":
    """Load the model into this process.

    Raises:
        LabelError: an arm is not named as profiles and their strength are.
        ProfileNotFound: an arm names a profile that does not exist. Both are checked before the model is loaded.
    """
    from steering_ab.asking.clients import require_client
    from steering_profiles.labels import parse_label
    from steering_profiles.store import Catalogue
    from steering_server.cli.in_process import load_backend
    from steering_server.config import load_settings
    from steering_server.logs import configure_logs

    require_client()
    settings = load_settings(**given)
    configure_logs("error")
    catalogue = Catalogue.open(settings.profiles)
    for arm in arms:
        for name in parse_label(arm).names:
            catalogue[name]
    return load_backend(settings)


async def _result(
    run: "Run",
    backend: "Backend | None",
    url: str | None,
    api_key: str | None,
    judge_client: "AsyncSteeringClient | None",
    bars: Any,
) -> "Result":
    from steering_ab.asking.clients import client_of, require_answering
    from steering_ab.asking.servers import asker_of
    from steering_ab.asking.steering_server import SteeringServer
    from steering_server.cli.in_process import client_in_process

    settings: AskSettings = run.settings
    async with AsyncExitStack() as stack:
        if judge_client is not None:
            await stack.enter_async_context(judge_client)
            await require_answering(judge_client)
        if backend is not None:
            client = await stack.enter_async_context(client_in_process(backend))
            return await run.result(SteeringServer(client, "in this process", settings), bars)
        if url is not None and not run.regrade:
            client = await stack.enter_async_context(client_of(url, api_key, run.concurrency))
            return await run.result(await asker_of(client, url, settings), bars)
        return await run.result(None, bars)


def _about(judge: "JudgeModel | None") -> dict[str, Any]:
    """Return what is needed to run the command again, besides the settings that answers depend on."""
    from steering_ab.comparing import versions

    about: dict[str, Any] = {"command": shlex.join(["steer", *sys.argv[1:]]), "versions": versions()}
    return about | ({"judge": judge.name} if judge is not None else {})


def _kept(run: "Run") -> str:
    return run.kept.removeprefix("; ") or "no answers were given yet"
