"""Comparisons from Python: items and arms in, a result out."""

import asyncio
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steering_ab.analysis.result import Result
from steering_ab.asking.asker import Asker, AskSettings
from steering_ab.asking.functions import Answering, Function, given_answers
from steering_ab.asking.labels import labelled
from steering_ab.datasets.dataset import Dataset, dataset_of
from steering_ab.datasets.reading import read_dataset
from steering_ab.errors import AskingError
from steering_ab.graders.judge import JudgeModel
from steering_ab.graders.planning import plan_grading
from steering_ab.requirements import parse_requirement
from steering_ab.runs.run import Run
from steering_profiles.progress import Progress

if TYPE_CHECKING:
    from steering_client import AsyncSteeringClient

Items = str | Path | Iterable[Mapping[str, Any] | str] | Dataset
ResultT = TypeVar("ResultT")


async def ab_async(
    items: Items,
    arms: Sequence[str] = ("baseline", "parentheses"),
    *,
    url: str | None = None,
    client: "AsyncSteeringClient | None" = None,
    answer: Answering | None = None,
    answers: Mapping[str, Sequence[str]] | None = None,
    graders: Sequence[str] = (),
    require: Sequence[str] = (),
    judge: JudgeModel | None = None,
    api_key: str | None = None,
    repeats: int = 1,
    concurrency: int = 16,
    seed: int = 0,
    temperature: float = 0.0,
    max_tokens: int = 16,
    chat: bool = False,
    detect: float = 0.05,
    strict: bool = False,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Compare arms on a data set, as ``steer ab`` does, and return the result.

    Args:
        items: Path of a data set, mappings with the fields of its lines, or prompts.
        arms: The arms, the reference first; with ``answers`` they are its keys.
        url: Server to ask; by default ``http://127.0.0.1:8000``, unless one of the next three is given.
        client: Client of the server to ask. It is not closed.
        answer: Function that answers: it takes an item and an arm, and returns text. It may be a coroutine function.
        answers: Answers that are there already: for each arm one per item.
        graders: Names of graders, such as ``exact``; by default what suits each item.
        require: Requirements, such as ``parentheses - baseline >= 0.05``.
        judge: Model that the grader ``judge`` asks.
        api_key: Key of the server at ``url``.
        repeats: Number of answers of each arm to each item, which need a ``temperature``.
        concurrency: Maximum number of requests at once.
        seed: Seed of all random numbers.
        temperature: Sampling temperature; 0 is greedy decoding.
        max_tokens: Maximum number of tokens of an answer, for items that have none of their own.
        chat: Whether a prompt is sent as the message of a user.
        detect: Difference of rates for which the number of items is planned.
        strict: Whether a line that cannot be used is an error.
        out: Folder that keeps answers and grades as they come; by default nothing is written.
        progress: Receiver of progress.

    Raises:
        ABError: something is given that is not allowed, or the arms cannot be asked; the message says what.
        EvaluationError: a grader runs programs, and they cannot be run here in a sandbox.
    """
    sources = {"url": url, "client": client, "answer": answer, "answers": answers}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise AskingError(f"{given[1]} is given, and {given[0]} says who answers already; give one of them")
    names = labelled(tuple(answers) if answers is not None else arms)
    requirements = [parse_requirement(text) for text in require]
    dataset = _dataset(items).require_usable(strict=strict)
    whole = dataset.items
    dataset, gradings = plan_grading(dataset, graders, judge)
    dataset.require_usable(strict=strict)
    settings = AskSettings(temperature, max_tokens, seed, chat)
    run = Run(
        dataset=dataset,
        arms=names,
        gradings=gradings,
        settings=settings,
        repeats=repeats,
        concurrency=concurrency,
        requirements=requirements,
        detect=detect,
        about={"versions": versions()},
        out=None if out is None else Path(out),
        keeps=out is not None,
    )
    async with AsyncExitStack() as stack:
        asker: Asker
        if answers is not None:
            asker = Function(given_answers(answers, whole), "answers that were there", settings)
        elif answer is not None:
            asker = Function(answer, getattr(answer, "__name__", type(answer).__name__), settings)
        else:
            from steering_ab.asking.clients import client_of
            from steering_ab.asking.servers import asker_of

            where = url or ("a client's server" if client is not None else "http://127.0.0.1:8000")
            if client is None:
                client = await stack.enter_async_context(client_of(where, api_key, concurrency))
            asker = await asker_of(client, where, settings)
        return await run.result(asker, progress)


def ab(items: Items, arms: Sequence[str] = ("baseline", "parentheses"), **options: Any) -> Result:
    """Compare arms on a data set and return the result; see :func:`ab_async`, whose options it takes.

    It also works where an event loop runs already, as in a notebook.
    """
    return _run(ab_async(items, arms, **options))


def versions() -> dict[str, str]:
    """Return the versions that a comparison depends on."""
    from importlib.metadata import version

    packages = ("steering-server", "scipy", "statsmodels", "numpy")
    return {"python": sys.version.split()[0], **{package: version(package) for package in packages}}


def _dataset(items: Items) -> Dataset:
    if isinstance(items, Dataset):
        return items
    return read_dataset(items) if isinstance(items, str | Path) else dataset_of(items)


def _run(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
