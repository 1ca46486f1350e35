"""The page reads, grades and counts as ``steer ab`` does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from steering_ab.datasets import read_dataset
from steering_ab.datasets.item import Item
from steering_ab.errors import DatasetError
from steering_ab.graders.grader import Answer
from steering_ab.graders.matching import MATCHES, normalised
from steering_ab.statistics.multiplicity import holm
from steering_ab.statistics.paired import PairedCounts, difference_interval, mcnemar
from steering_ab.statistics.proportions import wilson
from tests.page.imported import call

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, whose modules the tests call."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    yield page
    context.close()


READ = """async ([name, bytes]) => {
    const { readDataset, Unusable } = await import("/page/dataset/reading.js");
    try {
        return readDataset(name, new Uint8Array(bytes));
    } catch (error) {
        if (!(error instanceof Unusable)) throw error;
        return null;
    }
}"""


def read(page: Page, name: str, content: bytes) -> dict[str, Any] | None:
    """Read a file in the browser; None if it is no data set."""
    found: dict[str, Any] | None = page.evaluate(READ, [name, list(content)])
    return found


JSONL = {
    "plain": b'{"prompt": "a", "expected": "b"}\n'
    b'{"prompt": "c", "expected": ["d", "e"], "tags": ["x", "y", "x"], "max_tokens": 3}\n',
    "bom, blank lines, CRLF": b'\xef\xbb\xbf\r\n{"prompt": "a", "expected": "b"}\r\n\n  \n'
    b'{"prompt": "c", "expected": ""}',
    "numbers": b'{"prompt": "a", "expected": 4, "id": 7}\n'
    b'{"prompt": "b", "expected": [4.0, 0.5, 1e2, -3], "max_tokens": 10.0}\n',
    "messages": b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}], '
    b'"expected": "x"}\n',
    "null is not given": b'{"prompt": "a", "messages": null, "expected": "x", "id": null, "tags": null}\n',
    "other columns": b'{"prompt": "a", "expected": "x", "source": {"deep": [1, null]}}\n',
    "line separators in text": '{"prompt": "a\u2028b", "expected": "x"}\n'.encode(),
    "faults": b"\n".join(
        [
            b"nonsense",
            b"[1]",
            b"3",
            b'{"prompt": "a", "messages": [{"role": "user", "content": "x"}]}',
            b'{"expected": "x"}',
            b'{"prompt": ""}',
            b'{"prompt": 3}',
            b'{"prompt": "a", "expected": []}',
            b'{"prompt": "a", "expected": {"x": 1}}',
            b'{"prompt": "a", "expected": true}',
            b'{"prompt": "a", "choices": ["x"]}',
            b'{"prompt": "a", "choices": ["x", "x"]}',
            b'{"prompt": "a", "choices": "x"}',
            b'{"prompt": "a", "max_tokens": 0}',
            b'{"prompt": "a", "max_tokens": "3"}',
            b'{"prompt": "a", "id": " "}',
            b'{"prompt": "a", "id": "twice"}',
            b'{"prompt": "b", "id": "twice"}',
            b'{"messages": []}',
            b'{"messages": [{"role": "robot", "content": "x"}]}',
            b'{"messages": [{"role": "user", "content": "x", "name": "y"}]}',
            b'{"messages": [{"role": "user"}]}',
            b'{"prompt": "\\ud800"}',
            b'{"prompt": "\xff"}',
            b'{"prompt": "a", "expected": NaN}',
            b'{"prompt": "good", "expected": "x"}',
        ]
    ),
}
CSV = {
    "plain": b"prompt,expected\na,b\nc,d\n",
    "semicolons and other columns": "prompt;expected;source\nä;b;x\nc;;y\n".encode(),
    "tabs": b"id\tprompt\texpected\n1\ta\tb\n",
    "quotes": b'prompt,expected\n"a ""quoted"", b","x\ny"\nplain,"z"\n',
    "lists": b'prompt,expected,choices,tags,max_tokens\na,"[""b"", ""c""]",b|c,"x; y,z",3\nd,[b,b|c,,3.0\n',
    "messages": b'messages,expected\n"[{""role"": ""user"", ""content"": ""hi""}]",x\nnonsense,y\n',
    "emptied columns, CRLF, blank rows": b"prompt,expected\r\na,b,\r\n\r\n,\r\nc,d,,\r\n",
    "faults": b'prompt,expected,max_tokens\na,b,1,2\nc\n"d"e,f,1\ng,h,much\ni,j,0\n',
    "bytes that are not UTF-8": b"prompt,expected\n\xff,b\nc,d\n",
    "a cell that is not closed": b'prompt,expected\na,b\n"c,d\ne,f\n',
    "old line ends": b"prompt,expected\ra,b\rc,d\r",
    "header after blank lines": b"\n \nprompt,expected\na,b\n",
}


@pytest.mark.parametrize(
    ("suffix", "content"),
    [*((".jsonl", each) for each in JSONL.values()), *((".csv", each) for each in CSV.values())],
    ids=[*JSONL, *(f"csv {name}" for name in CSV)],
)
def test_a_file_has_the_items_and_the_faults_that_it_has_for_steer_ab(
    page: Page, suffix: str, content: bytes, tmp_path: Path
):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    expected, found = read_dataset(path), read(page, path.name, content)
    assert found is not None
    assert [
        (item.id, item.line, item.prompt, [dict(message) for message in item.messages], list(item.expected),
         list(item.choices), list(item.tags), item.max_tokens, item.grader)
        for item in expected.items
    ] == [
        (item["id"], item["line"], item["prompt"], item["messages"] or [], item["expected"], item["choices"],
         item["tags"], item["max_tokens"], item["grader"])
        for item in found["items"]
    ]  # fmt: skip
    assert [fault.line for fault in expected.faults] == [fault["line"] for fault in found["faults"]]
    assert all(fault["reason"] for fault in found["faults"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b" \n"),
        ("a.jsonl", b'[{"prompt": "a"}]'),
        ("a.csv", b"question,answer\na,b\n"),
        ("a.csv", b"prompt,prompt\na,b\n"),
        ("a.txt", b"\x00\x01"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16")),
    ],
    ids=str,
)
def test_a_file_that_is_no_data_set_for_steer_ab_is_none_here(page: Page, name: str, content: bytes, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError):
        read_dataset(path)
    assert read(page, name, content) is None


@pytest.mark.parametrize("name", ["brackets.jsonl", "colours.jsonl"])
def test_the_examples_of_the_documents_are_read_whole(page: Page, name: str):
    found = read(page, name, (EXAMPLES / name).read_bytes())
    assert found is not None
    assert (len(found["items"]), found["faults"]) == (60, [])


TEXTS = [
    "Yellow",
    " yellow ",
    "YELLOW\n",
    "straße",
    "STRASSE",
    "ﬁne",
    "fine",
    "a  b\tc",
    "a b c",
    "",
    " ",
    "Ὀδυσσεύς",
    "ὈΔΥΣΣΕΎΣ",
    "ｆｕｌｌ",
]


def test_text_is_normalised_as_in_steer_ab(page: Page):
    assert [call(page, "dataset/grading.js", "normalised", text) for text in TEXTS] == [
        normalised(text) for text in TEXTS
    ]


@pytest.mark.parametrize("grader", MATCHES)
def test_answers_are_graded_as_in_steer_ab(page: Page, grader: str):
    answers = ["yellow", "Yellow", " YELLOW fruit", "a yellow one", "green", ""]
    expected = ("yellow", "Green ")
    item = {"expected": list(expected), "grader": None}
    found = [call(page, "dataset/grading.js", "isRight", item, grader, answer) for answer in answers]
    of = Item("i", 1, "x", expected=expected)
    assert found == [MATCHES[grader].grade(of, Answer(text)) == 1 for text in answers]
    assert len(set(found)) == 2


@pytest.mark.parametrize(
    ("gained", "lost", "total"),
    [(0, 0, 1), (0, 0, 60), (3, 0, 20), (8, 1, 60), (0, 12, 60), (20, 20, 40), (60, 0, 60), (0, 60, 60),
     (500, 430, 3000)],
)  # fmt: skip
def test_differences_have_the_intervals_and_p_values_of_steer_ab(page: Page, gained: int, lost: int, total: int):
    counts = PairedCounts(total - gained - lost, lost, gained, 0)
    interval = difference_interval(counts)
    found = call(page, "dataset/statistics.js", "differenceInterval", gained, lost, total)
    assert found == pytest.approx([interval.low, interval.high], abs=1e-9)
    assert call(page, "dataset/statistics.js", "mcnemar", gained, lost) == pytest.approx(mcnemar(counts), rel=1e-9)


@pytest.mark.parametrize(("right", "total"), [(0, 5), (5, 5), (14, 60), (2999, 3000)])
def test_rates_have_the_intervals_of_steer_ab(page: Page, right: int, total: int):
    interval = wilson(right, total)
    assert call(page, "dataset/statistics.js", "wilson", right, total) == pytest.approx([interval.low, interval.high])


def test_p_values_are_adjusted_as_in_steer_ab(page: Page):
    values = [0.04, 0.001, 0.6, 0.03]
    assert call(page, "dataset/statistics.js", "holm", values) == pytest.approx(list(holm(values)))


def test_words_that_differ_are_marked_on_both_sides(page: Page):
    one, other = call(page, "dataset/words.js", "markedWords", "the cat sat, here", "the dog sat")
    assert [piece["text"] for piece in one if piece["differs"]] == ["cat", ", here"]
    assert [piece["text"] for piece in other if piece["differs"]] == ["dog"]
    assert "".join(piece["text"] for piece in one) == "the cat sat, here"
