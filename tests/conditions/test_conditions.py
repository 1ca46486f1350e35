"""Conditions of profiles: what their file says, and where they hold."""

import json

import pytest
from pydantic import ValidationError

from steering_profiles.conditions import Condition, ConditionTrace


def held(when: dict[str, object], text: str, prompt_length: int = 5) -> str:
    """The characters at which the condition holds, each a token; a dot for the others."""
    condition = Condition.model_validate(when)
    trace = ConditionTrace([condition], lambda token: chr(token).encode(), prompt_length)
    tokens = [ord(character) for character in text]
    return "".join(
        character if is_held else "." for character, is_held in zip(text, trace.held(tokens, 0, len(text)), strict=True)
    )


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"last_token": [ord("("), ord("1")]}, ".....(...(1......"),
        ({"ends_with": ["t(", "1"]}, ".....(....1......"),
        ({"matches": r"\([a-z]*"}, ".....(str(......."),
        ({"from_position": 9}, ".........(1)) end"),
        ({"part": "prompt"}, "prin............."),
        ({"part": "completion"}, "....t(str(1)) end"),
        ({"part": "last_prompt_token"}, "....t............"),
        ({"not": {"part": "completion"}}, "prin............."),
        ({"all": [{"from_position": 3}, {"not": {"ends_with": ["("]}}]}, "...nt.str.1)) end"),
        ({"any": [{"ends_with": ["("]}, {"from_position": 14}]}, ".....(...(....end"),
    ],
)
def test_a_condition_holds_at_these_characters(when: dict[str, object], expected: str):
    assert held(when, "print(str(1)) end") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n```py\nx\n```\ny", ".......\nx\n``..."),
        ("~~~\n```\n~~~~\nz", "...\n```\n~~...."),
        ("```\na\n  ``` \nb", "...\na\n  ``...."),
        ("````\n```\n````\n", "....\n```\n```.."),
    ],
    ids=["of backticks", "of tildes", "indented", "of four"],
)
def test_a_code_block_is_what_is_between_its_fences(text: str, expected: str):
    assert held({"inside": "code_block"}, text) == expected


@pytest.mark.parametrize(
    "text", ["``\nx", "a ```\nx", "```a`b\nx", "    ```\nx"], ids=["short", "not first", "with a backtick", "indented"]
)
def test_what_is_no_fence_opens_no_block(text: str):
    assert set(held({"inside": "code_block"}, text)) == {"."}


def test_a_line_that_goes_on_after_backticks_closes_no_block():
    assert held({"inside": "code_block"}, "```\n```x\ny").endswith("x\ny")


def test_several_conditions_are_read_at_once_and_in_parts():
    conditions = [Condition(ends_with=("b",)), Condition(from_position=2), Condition(ends_with=("ab",))]
    tokens = list(b"abab")
    trace = ConditionTrace(conditions, lambda token: bytes([token]), 0)
    assert trace.held(tokens[:2], 0, 1) == [0]
    assert trace.held(tokens, 2, 4) == [0b010, 0b111]
    assert trace.held(tokens, 0, 4) == [0, 0b101, 0b010, 0b111]


@pytest.mark.parametrize(
    "when",
    [
        {"ends_with": ["ab"]},
        {"matches": "a+b"},
        {"inside": "code_block"},
        {"all": [{"not": {"ends_with": ["aa"]}}, {"any": [{"matches": "ab"}, {"inside": "code_block"}]}]},
    ],
    ids=["ends_with", "matches", "inside", "joined"],
)
def test_tokens_that_may_come_are_tested_and_not_kept(when: dict[str, object]):
    def trace() -> ConditionTrace:
        return ConditionTrace([Condition.model_validate(when)], lambda token: bytes([token]), 0)

    tokens = list(b"ab\n```\naab\n```\nab")
    expected = trace().held(tokens, 0, len(tokens))
    tested = trace()
    for at in range(len(tokens)):
        assert tested.held_if(b"a`b\n") == trace().held([*tokens[:at], *b"a`b\n"], at, at + 4)
        assert tested.held_if(tokens[at:]) == expected[at:]
        tested.read(tokens[at : at + 1])
    assert tested.held_so_far(0, len(tokens)) == expected


def test_a_condition_is_written_as_it_was_read():
    when = {"all": [{"not": {"matches": r"\("}}, {"any": [{"inside": "code_block"}, {"last_token": [3]}]}]}
    condition = Condition.model_validate(when)
    assert json.loads(condition.model_dump_json()) == when
    assert (
        str(condition)
        == r"(not (the text ends with a match of \()) and (the position is inside a code block or the last token is 3)"
    )


def test_parts_are_named_in_words():
    assert str(Condition(part="last_prompt_token")) == "the position is the last of the prompt"
    assert str(Condition(part="completion")) == "the position is in the completion"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (
            {},
            "one of last_token, ends_with, matches, inside, part, from_position, all, any, not; this one has none",
        ),
        ({"part": "prompt", "from_position": 1}, "this one has part and from_position"),
        ({"part": "answer"}, "'prompt', 'completion' or 'last_prompt_token'"),
        ({"inside": "quotes"}, "'code_block'"),
        ({"ends_with": []}, "at least 1"),
        ({"ends_with": [""]}, "at least 1 character"),
        ({"ends_with": ["\ud800"]}, "valid string"),
        ({"last_token": [-1]}, "greater than or equal to 0"),
        ({"last_token": [True]}, "valid integer"),
        ({"from_position": "3"}, "valid integer"),
        ({"matches": "a("}, r"at character 2 there is a \( without its \)"),
        ({"all": []}, "at least 1"),
        ({"near": 3}, "Extra inputs"),
        ({"any": [{"from_position": n} for n in range(70)]}, "71 parts in 2 levels; allowed: 64 parts, 8 levels"),
    ],
)
def test_what_is_no_condition_is_refused(when: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        Condition.model_validate(when)


def test_conditions_may_not_be_nested_without_end():
    when: dict[str, object] = {"from_position": 1}
    for _ in range(8):
        when = {"not": when}
    with pytest.raises(ValidationError, match="9 parts in 9 levels; allowed: 64 parts, 8 levels"):
        Condition.model_validate(when)
