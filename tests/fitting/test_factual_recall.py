"""The factual recall tasks: their files, splits and tokens."""

import json
from collections import Counter
from collections.abc import Iterable

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from steering_profiles.conditions import ConditionTrace
from steering_profiles.errors import TaskError
from steering_profiles.models import LoadedModel
from steering_profiles.tasks import (
    Example,
    Task,
    factual_recall,
    factual_recall_held_out_formats,
    held_out_formats_of,
    make_task,
)
from steering_profiles.tasks.domains import DOMAINS, FOLDER, TOPIC, read_domain
from steering_profiles.tokenization import Vocabulary
from tests.builders import build_tokenizer

SEEDS = (0, 1, 2, 3)
FACTS = {name: dict(read_domain(name).facts) for name in DOMAINS}


@pytest.fixture(scope="module")
def tokenizer(embedded: LoadedModel) -> PreTrainedTokenizerBase:
    return embedded.tokenizer


@pytest.fixture(scope="module")
def task(tokenizer: PreTrainedTokenizerBase) -> Task:
    return factual_recall(tokenizer)


@pytest.fixture(scope="module")
def held_out(tokenizer: PreTrainedTokenizerBase) -> dict[str, tuple[Example, ...]]:
    return factual_recall_held_out_formats(tokenizer)


def splits_of(task: Task) -> dict[str, tuple[Example, ...]]:
    return {"train": task.train, "dev": task.dev, "test": task.test}


def topic_of(example: Example) -> str:
    before, after = example.template.split(TOPIC)
    return example.text.removeprefix(before).removesuffix(after)


def topics_of(examples: Iterable[Example], domain: str) -> set[str]:
    return {topic_of(example) for example in examples if example.group == domain}


def knowing(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Build the tokenizer of the small models with tokens for ``words``, each with the space before it."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([f" {word}" for word in words])
    return tokenizer


# The files.


@pytest.mark.parametrize("name", DOMAINS)
def test_every_topic_occurs_once_in_a_file(name: str):
    pairs: list[list[tuple[str, object]]] = []
    json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"), object_pairs_hook=pairs.append)
    facts = max(pairs, key=len)
    assert len(facts) == len({topic.casefold() for topic, _ in facts}) >= 20


@pytest.mark.parametrize("name", DOMAINS)
def test_templates_contain_the_topic_once_after_the_start_and_end_before_the_space(name: str):
    templates = read_domain(name).templates
    assert len(set(templates)) == len(templates) >= (16 if name == "capitals" else 8)
    for template in templates:
        assert template.count(TOPIC) == 1
        assert template.index(TOPIC) > 0
        assert template == template.strip()


@pytest.mark.parametrize("name", DOMAINS)
def test_no_prompt_contains_its_answer(name: str):
    domain = read_domain(name)
    for topic, answer in domain.facts:
        assert topic == topic.strip()
        assert answer == answer.strip()
        for template in domain.templates:
            assert answer.casefold() not in template.replace(TOPIC, topic).casefold().split()


def test_the_capitals_are_at_least_48():
    assert len(FACTS["capitals"]) >= 48


# The splits.


@pytest.mark.parametrize("seed", SEEDS)
def test_splits_share_no_answer_and_no_topic(tokenizer: PreTrainedTokenizerBase, seed: int):
    task = factual_recall(tokenizer, seed)
    assert task.groups == DOMAINS
    answers = [{example.answer for example in split} for split in splits_of(task).values()]
    assert sum(map(len, answers)) == len(set.union(*answers))
    for domain in DOMAINS:
        topics = [topics_of(split, domain) for split in splits_of(task).values()]
        assert sum(map(len, topics)) == len(set.union(*topics))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_is_split_about_40_20_40_with_answers_in_each_split(
    tokenizer: PreTrainedTokenizerBase, domain: str, seed: int
):
    made = factual_recall(tokenizer, seed, domain)
    topics = {name: len(topics_of(split, domain)) for name, split in splits_of(made).items()}
    answers = {name: len({example.answer for example in split}) for name, split in splits_of(made).items()}
    total = sum(topics.values())
    for name, share in (("train", 0.4), ("dev", 0.2), ("test", 0.4)):
        assert topics[name] / total == pytest.approx(share, abs=0.1)
    assert min(answers.values()) >= 1
    assert answers["test"] >= 2


def test_the_test_split_has_two_of_only_four_answers():
    tokenizer = knowing(["Spanish", "Arabic", "English", "French"])
    for seed in SEEDS:
        made = factual_recall(tokenizer, seed, "languages")
        assert sorted(len({example.answer for example in split}) for split in splits_of(made).values()) == [1, 1, 2]
        assert len({example.answer for example in made.test}) == 2


def test_the_task_of_one_domain_has_every_topic_in_every_template(tokenizer: PreTrainedTokenizerBase):
    made = factual_recall(tokenizer, task="continents")
    assert (made.name, made.groups) == ("continents", ("continents",))
    for split in splits_of(made).values():
        topics = topics_of(split, "continents")
        expected = {(topic, template) for topic in topics for template in read_domain("continents").templates}
        assert Counter((topic_of(example), example.template) for example in split) == Counter(expected)


def test_the_task_of_all_domains_is_limited_and_uses_topics_and_templates_evenly(task: Task):
    for split, most in ((task.train, 250), (task.dev, 125), (task.test, 250)):
        for domain in DOMAINS:
            examples = [example for example in split if example.group == domain]
            assert 80 <= len(examples) <= most
            for key in (topic_of, lambda example: example.template):
                times = Counter(map(key, examples)).values()
                assert max(times) - min(times) <= 1
            assert {example.template for example in examples} == set(read_domain(domain).templates)


def test_a_domain_has_the_same_splits_alone_and_with_the_others(tokenizer: PreTrainedTokenizerBase, task: Task):
    alone = factual_recall(tokenizer, task="languages")
    for name, split in splits_of(alone).items():
        assert topics_of(splits_of(task)[name], "languages") == topics_of(split, "languages")


def test_the_prompts_depend_on_the_seed(tokenizer: PreTrainedTokenizerBase, task: Task):
    assert factual_recall(tokenizer) == task
    assert factual_recall(tokenizer, 1).test != task.test
    assert factual_recall_held_out_formats(tokenizer) == held_out_formats_of("factual-recall", tokenizer)
    assert factual_recall_held_out_formats(tokenizer, 1) != factual_recall_held_out_formats(tokenizer)


def test_the_catalogue_has_the_task_of_all_domains_and_of_each_domain(tokenizer: PreTrainedTokenizerBase, task: Task):
    assert make_task("factual-recall", tokenizer) == task
    assert [make_task(name, tokenizer).groups for name in DOMAINS] == [(name,) for name in DOMAINS]


# The tokens.


def everything(task: Task, held_out: dict[str, tuple[Example, ...]]) -> list[Example]:
    sets = [*splits_of(task).values(), *task.fit_formats.values(), *held_out.values()]
    return [example for examples in sets for example in examples]


def test_the_token_range_is_that_of_the_topic(
    tokenizer: PreTrainedTokenizerBase, task: Task, held_out: dict[str, tuple[Example, ...]]
):
    for example in everything(task, held_out):
        assert example.topic is not None
        start, end = example.topic
        assert tokenizer.decode(example.prompt[start:end]).strip() == topic_of(example)
        assert topic_of(example) in FACTS[example.group]


def test_the_answer_token_is_the_first_of_the_answer_after_the_prompt(
    tokenizer: PreTrainedTokenizerBase, task: Task, held_out: dict[str, tuple[Example, ...]]
):
    for example in everything(task, held_out):
        answer = FACTS[example.group][topic_of(example)]
        whole = tuple(tokenizer.encode(f"{example.text} {answer}"))
        assert example.prompt == tuple(tokenizer.encode(example.text))
        assert whole[: len(example.prompt) + 1] == (*example.prompt, example.answer)
        assert f" {answer}".startswith(tokenizer.decode([example.answer]))


CONTINENTS = ["Africa", "Asia", "Europe", "South", "North"]
"""First words of the names of continents."""


def test_answers_with_the_same_first_token_are_left_out_with_the_reason():
    capitals = set(FACTS["capitals"].values()) - {"Berlin", "Bern"}
    made = factual_recall(knowing(["Ber", *capitals]), task="capitals")
    assert made.left_out == (
        "capitals: Berlin: its first token, 'Ber', is also the first token of Bern",
        "capitals: Bern: its first token, 'Ber', is also the first token of Berlin",
    )
    topics = set.union(*(topics_of(split, "capitals") for split in splits_of(made).values()))
    assert topics == set(FACTS["capitals"]) - {"Germany", "Switzerland"}


def test_an_answer_whose_first_token_is_a_single_letter_is_left_out_with_the_reason():
    assert factual_recall(knowing(CONTINENTS), task="continents").left_out == ()
    made = factual_recall(knowing([*CONTINENTS[:-1], "N"]), task="continents")
    assert made.left_out == ("continents: North America: its first token, 'N', is less than two characters of it",)


def test_a_domain_with_too_few_answers_is_left_out_with_the_reason():
    made = factual_recall(knowing(CONTINENTS))
    assert made.groups == ("continents",)
    assert [reason.split(":")[0] for reason in made.left_out] == [name for name in DOMAINS if name != "continents"]
    assert "languages: only 0 answers with 0 topics can be used; at least 4 with 20 are needed" in made.left_out[1]


@pytest.mark.parametrize("name", ["factual-recall", "sports"])
def test_a_tokenizer_without_a_usable_domain_is_rejected(name: str):
    for make in (factual_recall, factual_recall_held_out_formats):
        with pytest.raises(
            TaskError, match=r"no domain can be used .*sports: only 0 answers .*basketball: its first token"
        ):
            make(build_tokenizer(), 0, name)


# Few-shot prompts.


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_few_shot_prompts_have_train_facts_in_the_template_of_the_question(
    tokenizer: PreTrainedTokenizerBase, seed: int
):
    task, held_out = factual_recall(tokenizer, seed), factual_recall_held_out_formats(tokenizer, seed)
    for split, formats in ((task.dev, task.fit_formats), (task.test, held_out)):
        assert set(formats) == {"1 shot", "4 shots"}
        for name, examples in formats.items():
            assert Counter(example.group for example in examples) == dict.fromkeys(DOMAINS, 40)
            for example in examples:
                train = {topic: FACTS[example.group][topic] for topic in topics_of(task.train, example.group)}
                plain = next(one for one in read_domain(example.group).templates if example.template.endswith(one))
                shown = example.template.removesuffix(plain)
                facts = {f"{plain.replace(TOPIC, topic)} {answer}.\n" for topic, answer in train.items()}
                found = [fact for fact in facts if fact in shown]
                assert len(found) == int(name[0])
                assert sum(map(len, found)) == len(shown)
                assert topic_of(example) in topics_of(split, example.group)


def test_the_tasks_condition_holds_at_the_end_of_questions_without_facts_before_them_and_of_no_others(
    tokenizer: PreTrainedTokenizerBase, task: Task
):
    (condition,) = task.conditions
    held_out = factual_recall_held_out_formats(tokenizer, task.seed)

    vocabulary = Vocabulary(tokenizer)

    def holds(example: Example) -> bool:
        trace = ConditionTrace((condition,), vocabulary.bytes_of, len(example.prompt))
        return trace.held(example.prompt, len(example.prompt) - 1, len(example.prompt)) == [1]

    assert all(map(holds, (*task.train, *task.dev, *task.test)))
    for formats in (task.fit_formats, held_out):
        assert not any(holds(example) for examples in formats.values() for example in examples)
    assert not factual_recall(tokenizer, task="capitals-1-shot").conditions


@pytest.mark.parametrize("name", ["factual-recall", "factual-recall-1-shot", "factual-recall-4-shots"])
def test_the_condition_of_a_group_holds_at_the_end_of_its_prompts_and_of_no_others(
    tokenizer: PreTrainedTokenizerBase, name: str
):
    task, vocabulary = factual_recall(tokenizer, task=name), Vocabulary(tokenizer)
    conditions = tuple(task.group_conditions.values())
    held_out = factual_recall_held_out_formats(tokenizer, task=name)
    assert tuple(task.group_conditions) == DOMAINS
    own = (*task.train, *task.dev, *task.test)
    others = [one for formats in (task.fit_formats, held_out) for some in formats.values() for one in some]
    for place, example in enumerate((*own, *others)):
        trace = ConditionTrace(conditions, vocabulary.bytes_of, len(example.prompt))
        (held,) = trace.held(example.prompt, len(example.prompt) - 1, len(example.prompt))
        expected = 1 << DOMAINS.index(example.group) if place < len(own) else 0
        assert held == expected, example.text


@pytest.mark.parametrize(
    "text",
    ["He began to speak", "The book was written in", "We met in Paris. The company is", "Sports and", "the capital",
     "The official language is spoken by many", "def capital(", "It was made by hand, the"],
)  # fmt: skip
def test_no_condition_of_a_group_holds_in_text_that_asks_for_no_fact(
    tokenizer: PreTrainedTokenizerBase, task: Task, text: str
):
    tokens = tokenizer.encode(text)
    trace = ConditionTrace(tuple(task.group_conditions.values()), Vocabulary(tokenizer).bytes_of, len(tokens))
    assert trace.held(tokens, len(tokens) - 1, len(tokens)) == [0]


def test_prompts_of_the_same_format_and_template_differ_in_the_topic_only(task: Task):
    for examples in task.fit_formats.values():
        for domain in DOMAINS:
            templates = {example.template for example in examples if example.group == domain}
            assert len(templates) == len(read_domain(domain).templates)
        assert all(example.text == example.template.replace(TOPIC, topic_of(example)) for example in examples)


@pytest.mark.parametrize("name", ["1-shot", "4-shots"])
def test_a_task_with_shots_asks_the_same_facts_after_that_many_others(tokenizer: PreTrainedTokenizerBase, name: str):
    plain, made = factual_recall(tokenizer, task="languages"), factual_recall(tokenizer, task=f"languages-{name}")
    assert (made.name, made.groups, made.left_out) == (f"languages-{name}", ("languages",), plain.left_out)
    train = {topic: FACTS["languages"][topic] for topic in topics_of(plain.train, "languages")}
    for split, examples in splits_of(made).items():
        assert topics_of(examples, "languages") == topics_of(splits_of(plain)[split], "languages")
        for example in examples:
            question = next(one for one in read_domain("languages").templates if example.template.endswith(one))
            facts = {topic: f"{question.replace(TOPIC, topic)} {answer}.\n" for topic, answer in train.items()}
            shown = [topic for topic, fact in facts.items() if fact in example.text]
            assert len(shown) == int(name[0])
            assert topic_of(example) not in shown
            assert len(example.text) == sum(len(facts[topic]) for topic in shown) + len(
                question.replace(TOPIC, topic_of(example))
            )


def test_the_other_formats_of_a_task_with_shots_are_the_other_numbers(tokenizer: PreTrainedTokenizerBase):
    for shots, others in (
        ("", {"1 shot", "4 shots"}),
        ("-1-shot", {"0 shots", "4 shots"}),
        ("-4-shots", {"0 shots", "1 shot"}),
    ):
        name = f"capitals{shots}"
        assert set(make_task(name, tokenizer).fit_formats) == set(held_out_formats_of(name, tokenizer)) == others
    without = held_out_formats_of("capitals-4-shots", tokenizer)["0 shots"]
    assert {example.template for example in without} == set(read_domain("capitals").templates)
