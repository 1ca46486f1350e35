"""Factual recall: what is the capital of France? Lv et al. (arXiv:2403.19521).

Each domain (capitals, languages, currencies, continents, companies, sports) is a group, and a task of its own::

    The capital of France is          -> Paris
    Most people in Mexico speak       -> Spanish

The answer is the first token of " " + answer as it follows the prompt. Topics are split by their answer: those that
share one stand in the same split, so that no answer of test was seen in train or dev, and none of dev in train. Every
split has every template.

Prompts that show other facts first, in the same words, tell whether what helps without them helps with them too.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steering_profiles.errors import TaskError
from steering_profiles.tasks.continuation import tokens_after
from steering_profiles.tasks.domains import DOMAINS, TOPIC, Domain, read_domain
from steering_profiles.tasks.task import Example, Task
from steering_profiles.tokenization import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECALL_TASKS: dict[str, tuple[str, ...]] = {"factual-recall": DOMAINS} | {name: (name,) for name in DOMAINS}
"""The domains of each task."""
SHARES = {"train": 2, "dev": 1, "test": 2}
"""In what proportion the topics of a domain are split."""
FEWEST_ANSWERS = {"train": 1, "dev": 1, "test": 2}
"""Answers that each split of a domain has at least."""
FEWEST_TOPICS = 20
"""A domain with fewer topics than this is left out: its splits could say nothing."""
MOST = {"train": 1500, "dev": 750, "test": 1500}
"""Prompts of a split, over all domains; where more could be made, topics and templates are used evenly."""
SHOTS = {"1 shot": 1, "4 shots": 4}
"""Facts that a prompt shows before it asks, by shape."""
MOST_IN_FORMAT = 240
"""Prompts of a shape, over all domains."""


@dataclass(frozen=True)
class _Fact:
    topic: str
    answer: str
    token: int
    """The answer's first."""


@dataclass(frozen=True)
class _Usable:
    """What a tokenizer leaves of a domain."""

    domain: Domain
    splits: Mapping[str, Sequence[_Fact]]


def factual_recall(tokenizer: "PreTrainedTokenizerBase", seed: int = 0, task: str = "factual-recall") -> Task:
    """Make one of :data:`RECALL_TASKS` for ``tokenizer``.

    A domain is split in the same way in every task. An answer is left out if its first token is that of another
    answer, of whatever domain, or less than two characters of it.

    Raises:
        TaskError: this tokenizer leaves no domain enough answers.
    """
    usable, left_out = _usable_domains(tokenizer, seed, RECALL_TASKS[task])
    splits: dict[str, list[Example]] = {split: [] for split in MOST}
    for one in usable:
        name, unusable = one.domain.name, 0
        for split, most in MOST.items():
            draw = random.Random(f"{name} {seed} {split}")
            asked = _ask(tokenizer, name, one.domain.templates, one.splits[split], most // len(usable), draw)
            splits[split] += _known(asked)
            unusable += asked.count(None)
        if unusable:
            left_out.append(f"{name}: {unusable} prompts whose topic or answer is not made of tokens of its own")
    return Task(
        name=task,
        seed=seed,
        groups=tuple(one.domain.name for one in usable),
        train=tuple(splits["train"]),
        dev=tuple(splits["dev"]),
        test=tuple(splits["test"]),
        left_out=tuple(left_out),
        fit_formats=_with_shots(tokenizer, seed, usable, "dev"),
    )


def factual_recall_held_out_formats(
    tokenizer: "PreTrainedTokenizerBase", seed: int = 0, task: str = "factual-recall"
) -> dict[str, tuple[Example, ...]]:
    """Make prompts that show one or four facts of train, then ask for one of test.

    Raises:
        TaskError: this tokenizer leaves no domain enough answers.
    """
    usable, _ = _usable_domains(tokenizer, seed, RECALL_TASKS[task])
    return _with_shots(tokenizer, seed, usable, "test")


def _usable_domains(
    tokenizer: "PreTrainedTokenizerBase", seed: int, names: Sequence[str]
) -> tuple[list[_Usable], list[str]]:
    """Return what ``tokenizer`` leaves of these domains, and why not more.

    Raises:
        TaskError: it leaves none.
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
                f"{name}: {len(facts)} answers with {count} topics can be used, at least "
                f"{sum(FEWEST_ANSWERS.values())} with {FEWEST_TOPICS} are needed (not {'; '.join(reasons[:1])})"
            )
        else:
            left_out += [f"{name}: {reason}" for reason in reasons]
            usable.append(_Usable(domain, _deal(facts, random.Random(f"{name} {seed}"))))
    if not usable:
        raise TaskError(f"factual recall: no domain can be used with this tokenizer: {'; '.join(too_small)}")
    return usable, too_small + left_out


def _first_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[tuple[str, str], int | None]:
    """Return the first token of each domain's answers, None where the prompt swallows it."""
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
    """Say why an answer cannot be used; None if it can."""
    token, (name, answer) = tokens[of], of
    if token is None:
        return "merges with the end of the prompt"
    piece = str(tokenizer.decode([token])).strip()
    if len(piece) < 2 or not answer.startswith(piece):
        return f"its first token, {piece!r}, is not two characters of it or more"
    others = [other for other, its in tokens.items() if its == token and other != of]
    if others:
        same = ", ".join(other if domain == name else f"{other} ({domain})" for domain, other in others)
        return f"its first token, {piece!r}, is also that of {same}"
    return None


def _deal(facts: Mapping[str, Sequence[_Fact]], draw: random.Random) -> dict[str, list[_Fact]]:
    """Deal the answers, with all their facts, to the splits: those of many facts first, each where most are wanting."""
    answers = list(facts)
    draw.shuffle(answers)
    answers.sort(key=lambda answer: -len(facts[answer]))
    names = list(SHARES)
    draw.shuffle(names)  # who comes first where two want as many
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
    templates: Sequence[str],
    facts: Sequence[_Fact],
    most: int,
    draw: random.Random,
) -> list[Example | None]:
    """Ask for ``facts`` in ``templates``, so that any part of the list has its share of each; None where it cannot be.

    A list that is cut off has ``most`` prompts.
    """
    facts, templates = draw.sample(facts, len(facts)), draw.sample(templates, len(templates))
    # Both go round at once; where they would meet again, the templates move on by one.
    round_trip = math.lcm(len(facts), len(templates))
    asked: list[Example | None] = []
    for turn in range(min(most, len(facts) * len(templates))):
        template = templates[(turn + turn // round_trip) % len(templates)]
        asked.append(_example(tokenizer, group, template, facts[turn % len(facts)]))
    return asked


def _example(tokenizer: "PreTrainedTokenizerBase", group: str, template: str, fact: _Fact) -> Example | None:
    """Ask for ``fact``; None if its topic, or its answer's first token, is not made of tokens of its own there."""
    before, _, _ = template.partition(TOPIC)
    text = template.replace(TOPIC, fact.topic)
    prompt = encode_prompt(tokenizer, text)
    start = encode_prompt(tokenizer, before.rstrip(" "))
    end = encode_prompt(tokenizer, before + fact.topic)
    added = tokens_after(tokenizer, text, prompt, f" {fact.answer}")
    if not added or added[0] != fact.token or prompt[: len(start)] != start or prompt[: len(end)] != end:
        return None
    return Example(group, text, prompt, fact.token, topic=(len(start), len(end)), template=template)


def _with_shots(
    tokenizer: "PreTrainedTokenizerBase", seed: int, usable: Sequence[_Usable], split: str
) -> dict[str, tuple[Example, ...]]:
    """Ask for facts of ``split`` after some of train: the same ones wherever a template is asked, so that topics alone
    differ.
    """
    made: dict[str, list[Example]] = {}
    for name, shots in SHOTS.items():
        made[name] = []
        for one in usable:
            train, group = one.splits["train"], one.domain.name
            draw = random.Random(f"{group} {seed} {split} {name}")
            templates = [_showing(draw.sample(train, shots), template) for template in one.domain.templates]
            most = MOST_IN_FORMAT // len(usable)
            made[name] += _known(_ask(tokenizer, group, templates, one.splits[split], most, draw))
    return {name: tuple(examples) for name, examples in made.items()}


def _showing(facts: Iterable[_Fact], template: str) -> str:
    """Return ``template`` with ``facts`` before it, in its words."""
    return "".join(f"{template.replace(TOPIC, fact.topic)} {fact.answer}.\n" for fact in facts) + template


def _known(asked: Iterable[Example | None]) -> list[Example]:
    return [example for example in asked if example is not None]
