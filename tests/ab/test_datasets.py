"""Data sets as people have them: JSON Lines and CSV, with lines that cannot be used."""

from pathlib import Path

import pytest

from steering_ab.datasets import Dataset, dataset_of, read_dataset
from steering_ab.errors import DatasetError


def read(tmp_path: Path, name: str, content: str | bytes) -> Dataset:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_dataset(path)


def reasons(dataset: Dataset) -> dict[int, str]:
    return {fault.line: fault.reason for fault in dataset.faults}


def test_json_lines_may_have_a_byte_order_mark_crlf_and_blank_lines(tmp_path: Path):
    content = b'\xef\xbb\xbf{"prompt": "a", "expected": "b"}\r\n\r\n  \r\n{"prompt": "c"}\r\n'
    dataset = read(tmp_path, "a.jsonl", content)
    assert [(item.line, item.id, item.prompt) for item in dataset.items] == [(1, "line-1", "a"), (4, "line-4", "c")]
    assert not dataset.faults
    assert dataset.content_hash is not None


def test_an_item_has_all_its_fields_and_own_columns(tmp_path: Path):
    line = (
        '{"id": 7, "prompt": "p", "expected": ["a", 2, 0.5], "choices": ["x", "y"], "tags": ["t", "u", "t"], '
        '"max_tokens": 3.0, "grader": "exact", "mine": {"a": 1}, "empty": null}'
    )
    (item,) = read(tmp_path, "a.jsonl", line).items
    assert item.id == "7"
    assert item.expected == ("a", "2", "0.5")
    assert item.choices == ("x", "y")
    assert item.tags == ("t", "u")
    assert item.max_tokens == 3
    assert item.grader == "exact"
    assert item.columns == {"mine": {"a": 1}}


def test_a_single_expected_answer_and_tag_need_no_list(tmp_path: Path):
    (item,) = read(tmp_path, "a.jsonl", '{"prompt": "p", "expected": 4, "tags": "t"}').items
    assert (item.expected, item.tags) == (("4",), ("t",))


def test_a_line_may_hold_characters_that_others_take_for_line_ends(tmp_path: Path):
    (item,) = read(tmp_path, "a.jsonl", '{"prompt": "a\u2028b\x85c"}').items
    assert item.prompt == "a\u2028b\x85c"


FAULTY = {
    "not json": "is not JSON",
    "[1]": "allowed: an object",
    '{"prompt": "a", "x": NaN}': "NaN is no number of JSON",
    '{"prompt": "a", "prompt": "b"}': "'prompt' is given twice",
    '{"promt": "a"}': "has no prompt and no messages",
    '{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}': "has prompt and messages",
    '{"prompt": ""}': "prompt: ",
    '{"prompt": 3}': "prompt: ",
    '{"prompt": "\\ud800"}': "half of a surrogate pair",
    '{"prompt": "a", "max_tokens": 0}': "max_tokens: ",
    '{"prompt": "a", "max_tokens": "3"}': "max_tokens: ",
    '{"prompt": "a", "max_tokens": 1.5}': "max_tokens: ",
    '{"prompt": "a", "expected": []}': "expected: ",
    '{"prompt": "a", "expected": true}': "expected: ",
    '{"prompt": "a", "expected": [["b"]]}': "expected.0: ",
    '{"prompt": "a", "choices": ["b"]}': "choices: ",
    '{"prompt": "a", "choices": ["b", "b"]}': "choices: the same choice is given twice",
    '{"prompt": "a", "tags": {"b": 1}}': "tags: ",
    '{"messages": []}': "messages: ",
    '{"messages": [{"role": "robot", "content": "a"}]}': "messages.0.role: ",
    '{"messages": [{"role": "user"}]}': "messages.0.content: ",
    '{"prompt": "a", "x": ' + "[" * 100_000 + "}": "nested too deeply",
}


@pytest.mark.parametrize("line", [pytest.param(line, id=line[:40]) for line in FAULTY])
def test_a_line_that_cannot_be_used_is_named_and_the_rest_goes_on(tmp_path: Path, line: str):
    dataset = read(tmp_path, "a.jsonl", f'{{"prompt": "a"}}\n{line}\n{{"prompt": "b"}}\n')
    assert [item.line for item in dataset.items] == [1, 3]
    assert FAULTY[line] in reasons(dataset)[2]
    assert len(str(dataset.faults[0])) < 300


def test_strict_reading_ends_at_a_faulty_line(tmp_path: Path):
    dataset = read(tmp_path, "a.jsonl", '{"prompt": "a"}\nnope\n{"prompt": "b"}\n')
    assert dataset.require_usable() is dataset
    with pytest.raises(DatasetError, match=r"1 line that cannot be used: line 2: is not JSON"):
        dataset.require_usable(strict=True)


def test_an_id_that_is_used_twice_is_a_fault(tmp_path: Path):
    dataset = read(tmp_path, "a.jsonl", '{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n')
    assert reasons(dataset) == {2: "id: 'x' is that of line 1 already"}


def test_items_that_ask_the_same_are_counted(tmp_path: Path):
    assert read(tmp_path, "a.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "a"}\n').repeated == 1


def test_a_giant_line_and_bytes_that_are_not_utf_8_spoil_their_own_line_only(tmp_path: Path):
    giant = b'{"prompt": "' + b"x" * (5 * 2**20) + b'"}'
    dataset = read(tmp_path, "a.jsonl", giant + b'\n{"prompt": "\xe9"}\n{"prompt": "a"}\n{"prompt": "b"}')
    assert "allowed: 4 MiB" in reasons(dataset)[1]
    assert "byte 13 is 0xe9, which is not UTF-8" in reasons(dataset)[2]
    assert len(dataset.items) == 2


def test_csv_as_spreadsheets_write_it(tmp_path: Path):
    rows = [
        "prompt;expected;tags;choices;max_tokens;own",
        '"a;b";"[""x"", ""y""]";t, u;x|y;5;',
        '"two\nlines";[1, 2];;;7.0;mine',
        ";;;;;",
        'c;"say ""hi""";;;;',
    ]
    first, second, third = read(tmp_path, "a.csv", b"\xef\xbb\xbf" + "\r\n".join(rows).encode()).items
    assert (first.prompt, first.expected, first.tags) == ("a;b", ("x", "y"), ("t", "u"))
    assert (first.choices, first.max_tokens, first.columns) == (("x", "y"), 5, {})
    assert (second.line, second.prompt, second.expected) == (3, "two\nlines", ("[1, 2]",))
    assert (second.max_tokens, second.columns) == (7, {"own": "mine"})
    assert third.expected == ('say "hi"',)


def test_messages_in_a_cell_are_json(tmp_path: Path):
    content = 'messages\n"[{""role"": ""user"", ""content"": ""hi""}]"\nnope\n'
    dataset = read(tmp_path, "a.csv", content)
    assert dataset.items[0].messages == ({"role": "user", "content": "hi"},)
    assert "messages: is not JSON" in reasons(dataset)[3]


def test_rows_of_csv_that_cannot_be_used_are_named(tmp_path: Path):
    content = b'prompt,expected\na\nol\xe9,1\nb,1,2\nd,1,,\n"' + b"x" * 200_000 + b'",1\ne,2\n"open,1\nlost,2\n'
    dataset = read(tmp_path, "a.csv", content)
    assert [item.prompt for item in dataset.items] == ["d", "e"]
    found = reasons(dataset)
    assert "has 1 cells; the first line names 2 columns" in found[2]
    assert "not UTF-8" in found[3]
    assert "has 3 cells" in found[4]
    assert "more than 131,072 characters" in found[6]
    assert "quoted cell that is not closed" in found[8]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\xef\xbb\xbf \n\n", "is empty"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16"), "encoded in UTF-16; save it as UTF-8"),
        ("a.json", b'[{"prompt": "a"}]', "one JSON array"),
        ("a.parquet", b"PAR1\0\0", "is not text"),
        ("a.csv", b"question,answer\na,b\n", "names the columns, among them prompt or messages"),
        ("a.csv", b"prompt,x,x\na,b,c\n", "column 'x' is named twice"),
    ],
)
def test_a_file_that_is_no_data_set_is_refused(tmp_path: Path, name: str, content: bytes, message: str):
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, name, content)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path):
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "none.jsonl", "there is no file"), ("a\0", "null")):
        with pytest.raises(DatasetError, match=message):
            read_dataset(path)


def test_a_comparison_needs_two_items(tmp_path: Path):
    dataset = read(tmp_path, "a.jsonl", '{"prompt": "a"}\nnope\n')
    with pytest.raises(DatasetError, match=r"1 item that can be used \(1 line left out: line 2.*needs at least 2"):
        dataset.require_usable()


def test_items_from_python_are_checked_like_lines():
    dataset = dataset_of(["a", {"prompt": "b", "expected": 1}])
    assert [item.prompt for item in dataset.items] == ["a", "b"]
    with pytest.raises(DatasetError, match="line 2: is 3; allowed: a mapping, or a prompt"):
        dataset_of(["a", 3])  # type: ignore[list-item]
    with pytest.raises(DatasetError, match="line 1: has no prompt"):
        dataset_of([{"question": "a"}, "b"])
