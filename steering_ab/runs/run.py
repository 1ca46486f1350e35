"""A run from the first question to the result."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steering_ab.analysis.result import Result
from steering_ab.asking.asker import Asker, AskSettings
from steering_ab.datasets.dataset import Dataset, Fault
from steering_ab.datasets.item import Item
from steering_ab.errors import AskingError, RequirementError, RunError
from steering_ab.graders.grader import Answer
from steering_ab.graders.planning import Grading
from steering_ab.requirements import Requirement, require_known
from steering_ab.runs.asking import Unsettled, ask_all, requests_for
from steering_ab.runs.folder import Answers, RunFolder
from steering_ab.runs.grading import Found, GradeCache, grade_all, number_of_jobs
from steering_ab.runs.settings import RunSettings
from steering_profiles.progress import Progress, Silent

RUNS = Path("ab-runs")
"""Folder of all runs for which none is named."""
MAX_REPEATS = 1000
MAX_CONCURRENCY = 1024


@dataclass
class Run:
    """What is compared, and how far it is.

    Raises:
        RequirementError: a requirement names an arm, a tag or a grader that is not compared.
        AskingError: a number is not in its range, or items would be repeated without any difference.
    """

    dataset: Dataset
    arms: Mapping[str, str]
    """What each arm asks for, by its label."""
    gradings: Sequence[Grading]
    settings: AskSettings
    repeats: int = 1
    concurrency: int = 16
    requirements: Sequence[Requirement] = ()
    detect: float = 0.05
    about: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    """Folder of the run; None for one below ``ab-runs`` that is named after the data set and the settings."""
    keeps: bool = True
    """Whether there is a folder at all."""
    regrade: bool = False
    """Whether grades are made again, and no question is asked."""
    answered: int = 0
    """Number of items and repeats that have been answered."""
    total: int = 0
    folder: Path | None = None
    """The folder that is used, once it is known."""

    def __post_init__(self) -> None:
        for name, value, most in (
            ("repeats", self.repeats, MAX_REPEATS),
            ("concurrency", self.concurrency, MAX_CONCURRENCY),
        ):
            if not 1 <= value <= most:
                raise AskingError(f"{name} is {value}; allowed: 1..{most}")
        if not 0 <= self.settings.temperature <= 2:
            raise AskingError(f"temperature is {self.settings.temperature}; allowed: 0..2")
        if self.settings.max_tokens < 1:
            raise AskingError(f"max_tokens is {self.settings.max_tokens}; allowed: 1 or more")
        if self.repeats > 1 and self.settings.temperature == 0:
            raise AskingError(
                f"repeats is {self.repeats} at temperature 0, where every repeat gives the same text; set a temperature"
            )
        if not 0 < self.detect <= 1:
            raise AskingError(f"detect is {self.detect}; allowed: a difference of rates above 0 and at most 1")
        graders = {grading.name: grading for grading in self.gradings}
        require_known(self.requirements, self.arms, self.dataset.tags, graders)
        for requirement in self.requirements:
            grading = graders[requirement.grader] if requirement.grader else next(iter(graders.values()))
            if grading.pairwise and requirement.reference is None:
                raise RequirementError(
                    f"requirement {requirement.text!r}: grader {grading.name} compares pairs, so an arm has no rate of "
                    "its own; require a difference"
                )

    @property
    def kept(self) -> str:
        """What is kept when the run ends before its time, as the end of a message; nothing if nothing is."""
        if self.folder is None or not self.answered:
            return ""
        answered = f"{self.answered:,} of {self.total:,} requests are answered and kept in {self.folder}"
        return f"; {answered}; the same command goes on from there"

    async def result(self, asker: Asker | None, progress: Progress | None = None) -> Result:
        """Ask what has not been answered, grade, and return the result. ``asker`` is None to grade again.

        Raises:
            AskingError: an arm does not exist, nobody answers, or no item was answered.
            RunError: the folder cannot be used, or holds another run.
        """
        progress = progress or Silent()
        if asker is None:
            settings, self.about = self._recorded()
            self.repeats = settings.repeats
        else:
            facts = await asker.facts(self.arms)
            self.about = {**self.about, "versions": {**self.about.get("versions", {}), **facts.versions}}
            settings = RunSettings(
                dataset=self.dataset.name,
                arms=self.arms,
                described=facts.arms,
                model=facts.model,
                where=facts.where,
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
                seed=self.settings.seed,
                repeats=self.repeats,
                chat=self.settings.chat,
            )
        with self._folder(settings) as folder:
            answers = folder.read_answers() if folder else Answers()
            unsettled = Unsettled() if asker is None else await self._ask(asker, answers, folder, progress)
            return await self._grade(settings, answers, unsettled, folder, progress)

    async def _ask(self, asker: Asker, answers: Answers, folder: RunFolder | None, progress: Progress) -> Unsettled:
        items = self.dataset.items
        requests = list(requests_for(items, self.arms, self.repeats, answers, self._is_scored, together=asker.together))
        per_item = 1 if asker.together else len(self.arms)
        self.total = sum(1 if self._is_scored(item) else self.repeats for item in items) * per_item
        self.answered = self.total - len(requests)
        progress.stage("asking", self.total)
        progress.advance(self.answered)
        with _appending(folder) as append:

            def keep(item: Item, repeat: int, arm: str, answer: Answer) -> None:
                append(answers.add(item, repeat, arm, answer))

            def advance(answered: bool) -> None:
                self.answered += answered
                progress.advance(1)

            try:
                return await ask_all(asker, requests, keep, self.concurrency, advance)
            except AskingError as exc:
                raise AskingError(f"{exc}{self.kept}") from exc

    async def _grade(
        self,
        settings: RunSettings,
        answers: Answers,
        unsettled: Unsettled,
        folder: RunFolder | None,
        progress: Progress,
    ) -> Result:
        def found(item: Item, repeat: int, arm: str) -> Answer | None:
            return answers.get(item, repeat, arm, scored=self._is_scored(item))

        items, arms = self.dataset.items, tuple(self.arms)
        jobs = number_of_jobs(self.gradings, items, arms, self.repeats, found)
        if not jobs:
            faults = [*unsettled.refused.values(), *unsettled.failed.values()]
            reason = f": {min(faults, key=lambda fault: fault.line)}" if faults else ""
            raise AskingError(f"no item was answered by every arm, so there is nothing to compare{reason}")
        if folder and self.regrade:
            folder.grades.path.unlink(missing_ok=True)
        progress.stage("grading", jobs)
        with _appending(folder, grades=True) as append:
            cache = GradeCache(list(folder.grades.read()) if folder else [], append)
            graded = await grade_all(
                self.gradings, items, arms, self.repeats, found, cache, self.concurrency, progress.advance
            )
        return Result(
            settings=settings,
            about=self.about,
            dataset=self.dataset,
            graded=graded,
            answer=found,
            refused=_sorted(unsettled.refused.values()),
            unanswered=_sorted(unsettled.failed.values()) or self._missing(found),
            requirements=tuple(self.requirements),
            detect=self.detect,
            folder=self.folder,
        )

    def _is_scored(self, item: Item) -> bool:
        return any(grading.scores_choices(item) for grading in self.gradings)

    def _missing(self, found: Found) -> tuple[Fault, ...]:
        """Return the items without an answer of every arm, where no question was asked."""
        if not self.regrade:
            return ()
        reason = "has no answer in the run's folder to what it asks now"
        return tuple(
            Fault(item.line, reason)
            for item in self.dataset.items
            if any(found(item, 0, arm) is None for arm in self.arms)
        )

    def _recorded(self) -> tuple[RunSettings, Mapping[str, Any]]:
        """Return the settings of the run in the folder, whose answers are graded again.

        Raises:
            RunError: there is none, or it has other arms or repeats.
        """
        assert self.out is not None, "a run that is graded again names its folder"
        recorded = RunFolder(self.out).recorded()
        if recorded is None:
            raise RunError(f"{self.out} holds no run to grade again; name the folder of one with --out")
        if dict(recorded.settings.arms) != dict(self.arms):
            raise RunError(f"{self.out} holds a run of the arms {', '.join(recorded.settings.arms)}")
        again = {"graded again by": self.about["command"]} if "command" in self.about else {}
        return recorded.settings, {**self.about, **recorded.about, **again}

    @contextmanager
    def _folder(self, settings: RunSettings) -> Iterator[RunFolder | None]:
        if not self.keeps:
            yield None
            return
        stem = Path(self.dataset.name).stem or "items"
        self.folder = self.out or RUNS / f"{stem}-{settings.key}"
        folder = RunFolder(self.folder)
        with folder.locked():
            folder.begin(settings, self.about)
            yield folder


def _sorted(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.line))


@contextmanager
def _appending(folder: RunFolder | None, *, grades: bool = False) -> Iterator[Any]:
    if folder is None:
        yield lambda record: None
        return
    with folder.grades if grades else folder.answers as lines:
        yield lines.append
