"""Tasks from files: usable lines become examples, others are listed with line number and reason."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from steering_profiles.errors import TaskError
from steering_profiles.models import LoadedModel
from steering_profiles.schema import BASELINE, ProfileName
from steering_profiles.tasks import Example, Task, held_out_formats_of, jsonl_task, make_task, require_known, task_name
from steering_profiles.tasks.jsonl import MAX_FILE_BYTES, name_of
from tests.builders import build_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = ("hot", "cold", "big")


def build_word_tokenizer() -> PreTrainedTokenizerFast:
    """Build the byte-level test tokenizer with some words as tokens, with the space before them."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([f" {word}" for word in WORDS])
    return tokenizer


def line(number: int, answer: str = " hot", **fields: object) -> dict[str, object]:
    return {"prompt": f"The opposite of no. {number} is", "answer": answer, **fields}


def lines(count: int, answer: str = " hot", **fields: object) -> list[dict[str, object]]:
    return [line(number, answer, **fields) for number in range(count)]


def write(folder: Path, content: list[object] | str | bytes, name: str = "mine.jsonl") -> Path:
    """Write ``content`` to a file: objects as one JSON line each, text and bytes unchanged."""
    path = folder / name
    if isinstance(content, list):
        content = "".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, content: list[object] | str | bytes, seed: int = 0) -> Task:
    return jsonl_task(write(folder, content), build_word_tokenizer(), seed)


def examples_of(task: Task) -> list[Example]:
    return [*task.train, *task.dev, *task.test]


def reason_for(folder: Path, entry: object) -> str:
    """Return the reason why ``entry`` is left out of a file with otherwise usable lines."""
    task = read(folder, [*lines(20), entry])
    assert len(examples_of(task)) == 20
    assert len(task.left_out) == 1
    said = re.fullmatch(r"line 21: (.*)", task.left_out[0])
    assert said is not None, task.left_out
    return said[1]


def test_prompt_answer_and_candidates_become_tokens(tmp_path):
    tokenizer = build_word_tokenizer()
    path = write(tmp_path, lines(20, candidates=[" cold", " hot"], group="warmth"))
    task = jsonl_task(path, tokenizer)
    assert (task.name, task.groups, task.left_out) == ("mine", ("warmth",), ())
    for example in examples_of(task):
        assert list(example.prompt) == tokenizer.encode(example.text)
        assert tokenizer.decode([example.answer]) == " hot"
        assert [tokenizer.decode([token]) for token in example.candidates] == [" cold", " hot"]


def test_lines_without_candidates_form_one_group_named_like_the_file(tmp_path):
    task = read(tmp_path, lines(20))
    assert task.groups == ("mine",)
    assert {example.candidates for example in examples_of(task)} == {()}


def test_lines_with_candidates_are_grouped_by_answer(tmp_path):
    both = [
        *lines(20, " hot", candidates=[" hot", " cold"]),
        *[line(n, " cold", candidates=[" hot", " cold"]) for n in range(20, 40)],
    ]
    task = read(tmp_path, both)
    assert task.groups == (" hot", " cold")
    assert set(task.answers) == {" hot", " cold"}


def test_a_group_named_like_its_answer_is_printable(tmp_path):
    both = ["\t", "a"]
    task = read(tmp_path, [line(n, both[n % 2], candidates=both) for n in range(40)])
    assert task.groups == (r"'\t'", "a")


def test_answers_that_hardly_repeat_form_no_groups(tmp_path):
    content = [line(n, answer, candidates=["a", "b", answer]) for n, answer in enumerate("defghijklmnopqrstuvwxyz")]
    task = read(tmp_path, content)
    assert task.groups == ("mine",)
    assert len(examples_of(task)) == len(content)


def test_lines_are_split_350_150_150_in_each_group(tmp_path):
    task = read(tmp_path, [*lines(65, group="a"), *[line(n, group="b") for n in range(65, 78)]])
    sizes = {
        group: [sum(example.group == group for example in split) for split in (task.train, task.dev, task.test)]
        for group in task.groups
    }
    assert sizes == {"a": [35, 15, 15], "b": [7, 3, 3]}


def test_the_splits_depend_on_the_seed(tmp_path):
    assert read(tmp_path, lines(50), seed=1) == read(tmp_path, lines(50), seed=1)
    assert read(tmp_path, lines(50), seed=1).test != read(tmp_path, lines(50), seed=2).test


def test_the_files_own_splits_are_kept(tmp_path):
    splits = ["test", "train", "dev", "test"] * 5
    task = read(tmp_path, [line(n, split=split) for n, split in enumerate(splits)])
    assert task.split_sizes == {"train": 5, "dev": 5, "test": 10}
    assert [example.text for example in task.dev] == [line(n)["prompt"] for n in range(2, 20, 4)]


def test_splits_on_only_some_lines_are_rejected(tmp_path):
    with pytest.raises(TaskError, match="split is given on 1 of 21 usable lines, such as line 21, and not on line 1"):
        read(tmp_path, [*lines(20), line(20, split="test")])


UNUSABLE = {
    "not JSON": ("{'prompt': 1}", "not JSON: .* at character 2"),
    "not an object": ([1, 2], r"not a JSON object: \[1, 2\]"),
    "no answer": ({"prompt": "a"}, "answer: Field required"),
    "wrong type": ({"prompt": "a", "answer": 7}, "answer: Input should be a valid string"),
    "wrong type inside": (line(20, candidates=[" hot", 7]), "candidates.1: Input should be a valid string"),
    "unknown field": (line(20, answr="x"), "unknown field 'answr'; allowed are prompt, answer, candidates, group, spl"),
    "repeated field": ('{"prompt": "a", "answer": " hot", "answer": " cold"}', "'answer' is given more than once"),
    "empty prompt": ({"prompt": "", "answer": " hot"}, "prompt: String should have at least 1 character"),
    "empty answer": (line(20, ""), "answer: String should have at least 1 character"),
    "unknown split": (line(20, split="valid"), "split: Input should be 'train', 'dev' or 'test'"),
    "empty group": (line(20, group=""), "group: String should have at least 1 character"),
    "group with a control character": (line(20, group="\x1b[2J"), "group: contains characters that are not printable"),
    "several tokens": (line(20, "twelve"), "answer 'twelve' is 6 tokens in this tokenizer; it must be one"),
    "no leading space": (line(20, "hot"), "answer 'hot' is 3 tokens .*; ' hot', with a leading space, would work"),
    "leading space": (line(20, " a"), "answer ' a' is 2 tokens .*; 'a', without the leading space, would work"),
    "space at the prompt's end": (
        {"prompt": "It is ", "answer": "hot"},
        "answer 'hot' merges with the end of the prompt .*; without the space at the prompt's end ' hot' would work",
    ),
    "candidate of several tokens": (line(20, candidates=[" hot", "warm"]), "candidate 'warm' is 4 tokens"),
    "answer not among the candidates": (line(20, candidates=[" big", " cold"]), "answer ' hot' is not among the cand"),
    "one candidate": (line(20, candidates=[" hot"]), "candidates: List should have at least 2 items"),
    "candidate twice": (line(20, candidates=[" hot", " hot"]), "candidates ' hot' and ' hot' are the same token"),
    "long prompt": ({"prompt": "a" * 5000, "answer": " hot"}, "prompt is 5000 tokens .*; at most 4096 are allowed"),
    "very long prompt": ({"prompt": "a" * 200_000, "answer": " hot"}, "prompt: String should have at most 131072"),
    "prompt again": (line(7), "repeats the prompt of line 8"),
    "prompt again with another answer": (line(7, " cold"), "repeats the prompt of line 8, with another answer"),
    "half a character": ('{"prompt": "\\ud800", "answer": " hot"}', "prompt: Input should be a valid string, unable"),
    "half a candidate": (line(20, candidates=[" hot", "\udc80"]), "candidates.1: Input should be a valid string, unab"),
    "half a character in a field's name": (
        '{"prompt": "a", "answer": " hot", "\\udfff": 1}',
        r"field '\\udfff': Input should be a valid string",
    ),
    "lists without end": ("[" * 100_000, "JSON that is nested too deeply"),
    "number without end": ('{"prompt": ' + "1" * 5000 + "}", "JSON that cannot be read: Exceeds the limit"),
    "rare group": (line(20, group="rare"), "group 'rare' has 1 usable line and none for train and test"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_an_unusable_line_is_left_out_with_its_number_and_the_reason(tmp_path, fault: str):
    entry, reason = UNUSABLE[fault]
    assert re.match(reason, reason_for(tmp_path, entry))


def test_quoted_text_in_a_reason_is_short_and_printable(tmp_path):
    for answer in ("\x1b[2J" + "x" * 3000, "\x07\x07"):
        reason = reason_for(tmp_path, line(20, answer))
        assert len(reason) < 200
        assert reason.isprintable()


def test_an_unknown_token_is_rejected_as_an_answer(tmp_path):
    tokenizer = build_word_tokenizer()
    tokenizer.unk_token = " big"
    task = jsonl_task(write(tmp_path, [*lines(20), line(20, " big")]), tokenizer)
    assert task.left_out == ("line 21: answer ' big' is unknown to this tokenizer",)


def test_the_tokenizers_limit_applies_if_it_is_smaller(tmp_path):
    tokenizer = build_word_tokenizer()
    tokenizer.model_max_length = 50
    task = jsonl_task(write(tmp_path, [*lines(20), {"prompt": "a" * 51, "answer": " hot"}]), tokenizer)
    assert task.left_out == ("line 21: prompt is 51 tokens in this tokenizer; at most 50 are allowed",)


def test_blank_lines_a_byte_order_mark_and_dos_line_ends_are_accepted(tmp_path):
    text = "\r\n\r\n".join(json.dumps(entry) for entry in lines(20))
    task = read(tmp_path, b"\xef\xbb\xbf" + text.encode() + b"\r\n \r\n")
    assert (len(examples_of(task)), task.left_out) == (20, ())


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path):
    entry = {"prompt": "one\u2028two\x85is", "answer": " hot"}
    task = read(tmp_path, [*lines(20), json.dumps(entry, ensure_ascii=False)])
    assert entry["prompt"] in {example.text for example in examples_of(task)}


REFUSED = {
    "empty": (b"", "has no lines"),
    "not UTF-8": (b"{}\n\xff", "not UTF-8: byte 0xff in line 2"),
    "nothing usable": (["{", 7, 8, 9, 10], "no line can be used: line 1: not JSON.*line 2: .*line 3: .*; and 2 more"),
    "too few": (lines(9), "9 usable lines make 5 train, 2 dev, 2 test; each needs at least 4$"),
    "too few, with reasons": ([*lines(9), 7], "each needs at least 4. Left out: line 10: not a JSON object: 7"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_file_without_enough_usable_lines_is_rejected(tmp_path, fault: str):
    content, message = REFUSED[fault]
    with pytest.raises(TaskError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "mine.jsonl"))


def test_a_file_that_cannot_be_read_is_rejected(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path, "\0.jsonl"):
        with pytest.raises(TaskError, match="cannot be read"):
            jsonl_task(path, build_word_tokenizer())


def test_a_file_that_is_too_large_is_rejected(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(TaskError, match="larger than 64 MiB"):
        jsonl_task(path, build_word_tokenizer())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5
)
PROMPTS = st.sampled_from(["It is", "It is ", ""]) | st.text(max_size=5)
ANSWERS = st.sampled_from([" hot", " cold", "hot", ")", "))"])
ENTRIES = st.fixed_dictionaries(
    {"prompt": PROMPTS, "answer": ANSWERS},
    optional={"candidates": st.lists(ANSWERS, max_size=3), "group": st.sampled_from("ab") | JSON, "other": JSON},
)
CONTENT = st.lists(
    (ENTRIES | JSON).map(json.dumps) | st.text(max_size=9).filter(lambda text: "\n" not in text), max_size=12
)


@settings(max_examples=50)
@given(content=CONTENT, seed=st.integers(0, 3))
def test_every_line_is_used_once_or_left_out_with_a_reason(tmp_path_factory, content: list[str], seed: int):
    folder = tmp_path_factory.mktemp("jsonl")
    sound = [json.dumps(entry) for entry in lines(20)]
    task = read(folder, "\n".join([*sound, *content]), seed)
    texts = [example.text for example in examples_of(task)]
    assert len(set(texts)) == len(texts)
    numbers = [int(re.match(r"line (\d+): .", said)[1]) for said in task.left_out]
    assert numbers == sorted(set(numbers))
    assert len(texts) + len(numbers) == 20 + sum(1 for entry in content if entry.strip())
    assert {example.group for example in examples_of(task)} == set(task.groups)
    for split in (task.train, task.dev, task.test):
        assert {example.group for example in split} == set(task.groups)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/Colours of Things.jsonl", "colours-of-things"),
        ("_v1.2_.jsonl", "v1.2"),
        ("Résumé.jsonl", "resume"),
        ("日本.jsonl", "task"),
        ("baseline.jsonl", "baseline-task"),
        ("x" * 200 + ".jsonl", "x" * 64),
    ],
)
def test_a_task_is_named_like_its_file_in_the_characters_of_profile_names(path: str, name: str):
    assert name_of(path) == name


@given(stem=st.text(max_size=80))
def test_a_tasks_name_is_always_a_valid_profile_name(stem: str):
    name = name_of(f"{stem}.jsonl")
    assert TypeAdapter(ProfileName).validate_python(name) == name != BASELINE


def test_the_catalogue_finds_tasks_by_name_and_by_file(tmp_path):
    tokenizer = build_word_tokenizer()
    path = str(write(tmp_path, lines(20), "My Words.jsonl"))
    assert make_task(path, tokenizer, 5) == jsonl_task(path, tokenizer, 5)
    for source, name in ((path, "my-words"), ("parentheses", "parentheses"), ("arithmetic", "arithmetic")):
        require_known(source)
        assert task_name(source) == make_task(source, tokenizer, 5).name == name


def test_tasks_without_held_out_formats_have_none(tmp_path):
    tokenizer = build_word_tokenizer()
    assert "5 digits" in held_out_formats_of("parentheses", tokenizer)
    assert held_out_formats_of("arithmetic", tokenizer) == {}
    assert held_out_formats_of(str(write(tmp_path, lines(20))), tokenizer) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "poetry",
            "task is 'poetry'; known tasks: parentheses, arithmetic, factual-recall, .*; or the path of a .jsonl file",
        ),
        ("none.jsonl", "task is 'none.jsonl', but this file does not exist; known tasks: .*; or the path of a .jsonl"),
        ("", "task is ''; known tasks"),
    ],
)
def test_an_unknown_source_is_rejected(source: str, message: str):
    for refuse in (require_known, task_name, lambda source: make_task(source, build_word_tokenizer())):
        with pytest.raises(TaskError, match=message):
            refuse(source)


def test_a_file_named_like_a_built_in_task_is_rejected(tmp_path):
    path = str(write(tmp_path, lines(20), "Arithmetic.jsonl"))
    with pytest.raises(TaskError, match="rename the file"):
        require_known(path)


def test_every_line_of_the_example_file_can_be_used_with_the_default_model(embedded: LoadedModel):
    task = make_task(str(EXAMPLES / "colours.jsonl"), embedded.tokenizer)
    assert task.left_out == ()
    assert task.split_sizes == {"train": 36, "dev": 12, "test": 12}
    assert list(task.answers) == ["red", "yellow", "green", "blue", "white", "black"]


def test_prompts_do_not_contain_a_token_that_the_tokenizer_appends_to_every_text(tmp_path):
    appends = build_word_tokenizer()
    appends.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", appends.eos_token_id)]
    )
    path = write(tmp_path, lines(20, candidates=[" cold", " hot"]))
    task = jsonl_task(path, appends)
    assert task.left_out == ()
    assert examples_of(task) == examples_of(jsonl_task(path, build_word_tokenizer()))
