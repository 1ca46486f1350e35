"""The folder of a run: ``run.json``, ``answers.jsonl`` and ``grades.jsonl``, beside the reports."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from steering_ab.datasets.item import Item
from steering_ab.errors import RunError
from steering_ab.graders.grader import Answer
from steering_ab.runs.lines import Lines
from steering_ab.runs.settings import RunSettings

RUN, ANSWERS, GRADES, LOCK = "run.json", "answers.jsonl", "grades.jsonl", ".lock"


@dataclass(frozen=True)
class Recorded:
    """What ``run.json`` says."""

    settings: RunSettings
    about: Mapping[str, Any]
    """What else is needed to run it again: command, versions, data set."""


class RunFolder:
    """The folder of a run, which one process at a time writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers = Lines(path / ANSWERS)
        self.grades = Lines(path / GRADES)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder if it does not exist, and keep it from other processes in the context.

        Raises:
            RunError: it cannot be created or written to, or another process uses it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            lock.acquire(timeout=0)
        except Timeout as exc:
            raise RunError(f"{self.path} is in use by another run; wait for it, or choose another folder") from exc
        except OSError as exc:
            raise RunError(f"{self.path} is no folder that can be written to: {exc.strerror}") from exc
        try:
            yield
        finally:
            lock.release()

    def recorded(self) -> Recorded | None:
        """Return what ``run.json`` says; None if there is none.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / RUN
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return Recorded(RunSettings.model_validate(content["settings"]), content.get("about", {}))
        except FileNotFoundError:
            return None
        except NotADirectoryError as exc:
            raise RunError(f"{self.path} is a file; give the path of a folder") from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            reason = getattr(exc, "strerror", None) or f"{type(exc).__name__}: {str(exc).splitlines()[0]}"
            raise RunError(f"{path} cannot be read ({reason}); choose another folder with --out") from exc

    def begin(self, settings: RunSettings, about: Mapping[str, Any]) -> None:
        """Write ``run.json``, or check that it is of the same run.

        Raises:
            RunError: the folder holds a run with other settings, or cannot be written to.
        """
        before = self.recorded()
        if before is not None:
            difference = before.settings.difference(settings)
            if difference is not None:
                raise RunError(f"{self.path} holds a run with other settings: {difference}; choose another --out")
        from steering_profiles.writing import write_whole

        content = {"settings": settings.model_dump(), "about": dict(about)}
        try:
            write_whole(self.path / RUN, json.dumps(content, indent=2).encode() + b"\n")
        except OSError as exc:
            raise RunError(f"{self.path / RUN} cannot be written: {exc.strerror}") from exc

    def read_answers(self) -> "Answers":
        """Return all answers that the folder has."""
        answers = Answers()
        for record in self.answers.read():
            answers.take(record)
        return answers


class Answers:
    """Answers by item, repeat and arm. Those to a question that has changed since are not found."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, int, str], Answer] = {}

    def take(self, record: Mapping[str, Any]) -> None:
        """Take the answer that a record describes; one that is not a record of an answer is left out."""
        try:
            fields = {**record["answer"], "choice_logprobs": tuple(record["answer"].get("choice_logprobs", ()))}
            key = (str(record["item"]), str(record["asked"]), int(record["repeat"]), str(record["arm"]))
            answer = Answer(**fields)
        except (KeyError, TypeError, ValueError, AttributeError):
            return
        if isinstance(answer.text, str):
            self._found[key] = answer

    def add(self, item: Item, repeat: int, arm: str, answer: Answer) -> dict[str, Any]:
        """Add an answer, and return its record."""
        self._found[item.id, item.asked, repeat, arm] = answer
        content = {name: value for name, value in asdict(answer).items() if value not in (None, ())}
        return {
            "item": item.id,
            "line": item.line,
            "asked": item.asked,
            "repeat": repeat,
            "arm": arm,
            "answer": content | {"text": answer.text},
        }

    def get(self, item: Item, repeat: int, arm: str, *, scored: bool) -> Answer | None:
        """Return an answer; None if there is none. Where ``scored``, it must have log-probabilities of the choices."""
        answer = self._found.get((item.id, item.asked, repeat, arm))
        if answer is None or (scored and len(answer.choice_logprobs) != len(item.choices)):
            return None
        # A choice that was scored is no text that the model has written.
        return None if answer.choice_logprobs and not scored else answer
