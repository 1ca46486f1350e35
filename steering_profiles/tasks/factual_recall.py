"""Factual recall (Lv et al., arXiv:2403.19521): predict the first token of an answer, such as a country's capital.

Each domain (capitals, languages, currencies, continents, companies, sports) is a group, and a task of its own::

    The capital of France is          -> Paris
    Most people in Mexico speak       -> Spanish

The answer is the first token of " " + answer as it follows the prompt. Topics are split by answer: topics with the same
answer are in the same split, so no two splits share an answer. Every split has every template.

With a number of shots in its name, such as ``capitals-4-shots``, a task has that many other facts in the same template
before each question. Its other formats are the same questions after other numbers of facts.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError
from steering_profiles.tasks.continuation import tokens_after
from steering_profiles.tasks.domains import ASKED_BY, DOMAINS, TOPIC, Domain, read_domain
from steering_profiles.tasks.task import Example, Task
from steering_profiles.tokenization import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOTS = {"0 shots": 0, "1 shot": 1, "4 shots": 4}
"""Number of facts before the question, by prompt format."""
_FIRST_LINE = r"([^\n]*[^.\n]\n)?"
"""The first of two lines of a question, or of a fact: it does not end with a full stop."""


def after_facts(shots: int) -> Condition:
    """Return the condition that holds in the first question of a text, after so many facts of a line or two each."""
    facts = rf"({_FIRST_LINE}[^\n]*\.\n){{{shots}}}" if shots else ""
    return Condition(matches=rf"^{facts}{_FIRST_LINE}[^\n]+")


NO_FACTS_BEFORE = after_facts(0)
"""Holds where a question without facts before it is: in the first line of a text, and in the second if the first does
not end with a full stop, as in ``Q: ...?`` and ``A: ...``."""


def asks_for(domain: str, shots: int) -> Condition:
    """Return the condition that holds at the end of a question of ``domain`` after so many facts.

    It tests how the text begins and how it ends: text that goes on for longer, or that is about something else, does
    not meet it.
    """
    return Condition(all_=(after_facts(shots), Condition(matches=ASKED_BY[domain])))


@dataclass(frozen=True)
class RecallTask:
    """What a task of factual recall asks for."""

    domains: tuple[str, ...]
    shots: int
    """Number of facts before each question."""


RECALL_TASKS: dict[str, RecallTask] = {
    name if shots == 0 else f"{name}-{words.replace(' ', '-')}": RecallTask(domains, shots)
    for words, shots in SHOTS.items()
    for name, domains in ({"factual-recall": DOMAINS} | {name: (name,) for name in DOMAINS}).items()
}
"""The tasks by name: all domains or one, with each number of shots."""
SHARES = {"train": 2, "dev": 1, "test": 2}
"""Proportions of the splits, in topics of a domain."""
FEWEST_ANSWERS = {"train": 1, "dev": 1, "test": 2}
"""Minimum number of answers per split of a domain."""
FEWEST_TOPICS = 20
"""Minimum number of topics of a domain. A domain with fewer is left out."""
MOST = {"train": 1500, "dev": 750, "test": 1500}
"""Maximum number of prompts per split over all domains. If more could be made, topics and templates are used evenly."""
MOST_IN_FORMAT = 240
"""Maximum number of prompts per format over all domains."""


@dataclass(frozen=True)
class _Fact:
    topic: str
    answer: str
    token: int
    """First token of the answer."""


@dataclass(frozen=True)
class _Template:
    text: str
    """Text with one :data:`.TOPIC`, the facts before the question included."""
    shown: tuple[_Fact, ...]
    """Facts before the question."""


@dataclass(frozen=True)
class _Usable:
    """The part of a domain that can be used with a tokenizer."""

    domain: Domain
    splits: Mapping[str, Sequence[_Fact]]


def factual_recall(tokenizer: "PreTrainedTokenizerBase", seed: int = 0, task: str = "factual-recall") -> Task:
    """Make one of :data:`RECALL_TASKS` for ``tokenizer``.

    A domain has the same splits in every task. An answer is left out if another answer in any domain has the same first
    token, or if that token is less than two characters of the answer.

    Raises:
        TaskError: no domain has enough answers with this tokenizer.
    """
    kind = RECALL_TASKS[task]
    usable, left_out = _usable_domains(tokenizer, seed, kind.domains)
    splits: dict[str, list[Example]] = {split: [] for split in MOST}
    for one in usable:
        name, unusable = one.domain.name, 0
        for split, most in MOST.items():
            draw = random.Random(f"{name} {seed} {split}")
            templates = _templates(one, kind.shots, draw)
            asked = _ask(tokenizer, name, templates, one.splits[split], most // len(usable), draw)
            splits[split] += _known(asked)
            unusable += asked.count(None)
        if unusable:
            left_out.append(f"{name}: {unusable} prompts whose topic or answer is merged with the text around it")
    return Task(
        name=task,
        seed=seed,
        groups=tuple(one.domain.name for one in usable),
        train=tuple(splits["train"]),
        dev=tuple(splits["dev"]),
        test=tuple(splits["test"]),
        left_out=tuple(left_out),
        fit_formats=_with_other_shots(tokenizer, seed, usable, "dev", kind.shots),
        conditions=() if kind.shots else (NO_FACTS_BEFORE,),
        group_conditions={one.domain.name: asks_for(one.domain.name, kind.shots) for one in usable},
    )


def factual_recall_held_out_formats(
    tokenizer: "PreTrainedTokenizerBase", seed: int = 0, task: str = "factual-recall"
) -> dict[str, tuple[Example, ...]]:
    """Make prompts on test topics with other numbers of facts of train before the question than ``task`` has.

    Raises:
        TaskError: no domain has enough answers with this tokenizer.
    """
    kind = RECALL_TASKS[task]
    usable, _ = _usable_domains(tokenizer, seed, kind.domains)
    return _with_other_shots(tokenizer, seed, usable, "test", kind.shots)


def _usable_domains(
    tokenizer: "PreTrainedTokenizerBase", seed: int, names: Sequence[str]
) -> tuple[list[_Usable], list[str]]:
    """Return the domains that can be used with ``tokenizer``, and the reasons why parts of them are left out.

    Raises:
        TaskError: no domain can be used.
    """
    tokens = _first_tokens(tokenizer)
    usable: list[_Usable] = []
    left_out: list[str] = []
    too_small: list[str] = []
    for name in names:
        domain = read_domain(name)
        faults = {answer: _fault(tokenizer, tokens, (name, answer)) for answer in domain.topics}
        reasons = [f"{answer}: {fault}" for answer, fault in faults.items() if fault]
        facts = {
            answer: [_Fact(topic, answer, token) for topic in topics]
            for answer, topics in domain.topics.items()
            if not faults[answer] and (token := tokens[name, answer]) is not None
        }
        count = sum(map(len, facts.values()))
        if len(facts) < sum(FEWEST_ANSWERS.values()) or count < FEWEST_TOPICS:
            too_small.append(
                f"{name}: only {len(facts)} answers with {count} topics can be used; at least "
                f"{sum(FEWEST_ANSWERS.values())} with {FEWEST_TOPICS} are needed (unusable: {'; '.join(reasons[:1])})"
            )
        else:
            left_out += [f"{name}: {reason}" for reason in reasons]
            usable.append(_Usable(domain, _deal(facts, random.Random(f"{name} {seed}"))))
    if not usable:
        raise TaskError(f"factual recall: no domain can be used with this tokenizer: {'; '.join(too_small)}")
    return usable, too_small + left_out


def _first_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[tuple[str, str], int | None]:
    """Return the first token of each domain's answers; None if it is merged with the prompt."""
    found: dict[tuple[str, str], int | None] = {}
    for domain in map(read_domain, DOMAINS):
        for answer, topics in domain.topics.items():
            text = domain.templates[0].replace(TOPIC, topics[0])
            added = tokens_after(tokenizer, text, encode_prompt(tokenizer, text), f" {answer}")
            found[domain.name, answer] = added[0] if added else None
    return found


def _fault(
    tokenizer: "PreTrainedTokenizerBase", tokens: Mapping[tuple[str, str], int | None], of: tuple[str, str]
) -> str | None:
    """Return the reason why an answer cannot be used; None if it can."""
    token, (name, answer) = tokens[of], of
    if token is None:
        return "is merged with the end of the prompt"
    piece = str(tokenizer.decode([token])).strip()
    if len(piece) < 2 or not answer.startswith(piece):
        return f"its first token, {piece!r}, is less than two characters of it"
    others = [other for other, its in tokens.items() if its == token and other != of]
    if others:
        same = ", ".join(other if domain == name else f"{other} ({domain})" for domain, other in others)
        return f"its first token, {piece!r}, is also the first token of {same}"
    return None


def _deal(facts: Mapping[str, Sequence[_Fact]], draw: random.Random) -> dict[str, list[_Fact]]:
    """Distribute the answers with their facts to the splits: largest first, each to the split that lacks most facts."""
    answers = list(facts)
    draw.shuffle(answers)
    answers.sort(key=lambda answer: -len(facts[answer]))
    names = list(SHARES)
    draw.shuffle(names)  # decides between splits that lack equally many
    wanting = {name: sum(map(len, facts.values())) * SHARES[name] / sum(SHARES.values()) for name in names}
    needed = dict(FEWEST_ANSWERS)
    dealt: dict[str, list[_Fact]] = {name: [] for name in names}
    for left, answer in zip(range(len(answers), 0, -1), answers, strict=True):
        open_to = [name for name in names if needed[name] > 0 or left > sum(max(count, 0) for count in needed.values())]
        chosen = max(open_to, key=wanting.__getitem__)
        dealt[chosen] += facts[answer]
        wanting[chosen] -= len(facts[answer])
        needed[chosen] -= 1
    return dealt


def _ask(
    tokenizer: "PreTrainedTokenizerBase",
    group: str,
    templates: Sequence[_Template],
    facts: Sequence[_Fact],
    most: int,
    draw: random.Random,
) -> list[Example | None]:
    """Return at most ``most`` prompts for ``facts``, None for a prompt that cannot be used.

    Facts and templates are evenly represented in every part of the list.
    """
    facts, templates = draw.sample(facts, len(facts)), draw.sample(templates, len(templates))
    # Both cycle together. When a pair would occur again, the templates are shifted by one.
    round_trip = math.lcm(len(facts), len(templates))
    asked: list[Example | None] = []
    for turn in range(min(most, len(facts) * len(templates))):
        template = templates[(turn + turn // round_trip) % len(templates)]
        fact = facts[turn % len(facts)]
        if fact not in template.shown:  # as it can be where train facts are asked
            asked.append(_example(tokenizer, group, template.text, fact))
    return asked


def _example(tokenizer: "PreTrainedTokenizerBase", group: str, template: str, fact: _Fact) -> Example | None:
    """Return the prompt for ``fact``; None if its topic or answer is merged with the text around it."""
    before, _, _ = template.partition(TOPIC)
    text = template.replace(TOPIC, fact.topic)
    prompt = encode_prompt(tokenizer, text)
    start = encode_prompt(tokenizer, before.rstrip(" "))
    end = encode_prompt(tokenizer, before + fact.topic)
    added = tokens_after(tokenizer, text, prompt, f" {fact.answer}")
    if not added or added[0] != fact.token or prompt[: len(start)] != start or prompt[: len(end)] != end:
        return None
    return Example(group, text, prompt, fact.token, topic=(len(start), len(end)), template=template)


def _with_other_shots(
    tokenizer: "PreTrainedTokenizerBase", seed: int, usable: Sequence[_Usable], split: str, own: int
) -> dict[str, tuple[Example, ...]]:
    """Return prompts on ``split`` with every number of shots but the task's ``own``, by format."""
    made: dict[str, list[Example]] = {}
    for name, shots in SHOTS.items():
        if shots == own:
            continue
        made[name] = []
        for one in usable:
            group = one.domain.name
            draw = random.Random(f"{group} {seed} {split} {name}")
            templates = _templates(one, shots, draw)
            most = MOST_IN_FORMAT // len(usable)
            made[name] += _known(_ask(tokenizer, group, templates, one.splits[split], most, draw))
    return {name: tuple(examples) for name, examples in made.items()}


def _templates(one: _Usable, shots: int, draw: random.Random) -> list[_Template]:
    """Return the domain's templates with ``shots`` facts of train, written in the same template, before each.

    All prompts of a template have the same facts before the question, so they differ in the topic only.
    """
    templates = []
    for template in one.domain.templates:
        shown = tuple(draw.sample(one.splits["train"], shots))
        before = "".join(f"{template.replace(TOPIC, fact.topic)} {fact.answer}.\n" for fact in shown)
        templates.append(_Template(before + template, shown))
    return templates


def _known(asked: Iterable[Example | None]) -> list[Example]:
    return [example for example in asked if example is not None]
