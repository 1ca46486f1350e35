"""The Markdown file: the same tables as the page, with all text escaped."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from steering_profiles.reports.markdown import code_block, code_span, plain
from tests.reports.reading import Page, markdown_tables, shown
from tests.reports.samples import HOSTILE

texts = st.text(st.sampled_from("ab |`\\<>&*_[]()#-+.1\n$~!é") | st.characters(exclude_categories=["Cs"]), max_size=12)


def test_markdown_has_the_tables_of_the_page(page: Page, markdown: str):
    assert markdown_tables(markdown) == page.tables


def test_markdown_has_the_headings_of_the_page(page: Page, markdown: str):
    tokens = MarkdownIt("commonmark").parse(markdown)
    headings = [shown(tokens[i + 1]) for i, token in enumerate(tokens) if token.tag == "h2" and token.nesting == 1]
    assert headings == page.headings


def test_hostile_text_breaks_no_table(hostile_page: Page, hostile_markdown: str):
    tables = markdown_tables(hostile_markdown)
    assert len(tables) == len(hostile_page.tables)
    for table in tables:
        assert len({len(row) for row in table}) == 1
    assert HOSTILE.split(" \u202e")[0] in tables[0][1][0]


def test_tags_are_escaped(hostile_markdown: str):
    for token in MarkdownIt("commonmark").enable("table").parse(hostile_markdown):
        if token.type == "html_block":
            assert token.content.startswith(("<details><summary>", "</details>"))
            assert "<script" not in token.content
        if token.type == "inline":
            assert all(c.content in ("<code>", "</code>") for c in token.children or () if c.type == "html_inline")


@given(texts)
def test_any_cell_reads_as_its_text(text: str):
    table = f"| a | b |\n| --- | --- |\n| {plain(text)} | {code_span(text)} |"
    ((_, cells),) = markdown_tables(table)
    assert len(cells) == 2
    assert "".join(cells[0].split()) == "".join(_seen(text).split())


@given(texts)
def test_a_code_span_reads_as_its_text(text: str):
    ((_, cells),) = markdown_tables(f"| a |\n| --- |\n| {code_span(text)} |")
    if "·" not in text:
        assert cells[0].replace("·", " ") == _seen(text).replace("\n", "↵").replace("\t", "→")


@given(texts)
def test_any_paragraph_reads_as_its_text(text: str):
    tokens = MarkdownIt("commonmark").parse(plain(text))
    assert [token.type for token in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    assert not tokens or "".join(shown(tokens[1]).split()) == "".join(_seen(text).split())


@given(texts)
def test_a_code_block_ends_where_its_text_ends(text: str):
    (block,) = MarkdownIt("commonmark").parse(code_block(text))
    assert block.type == "fence"


def _seen(text: str) -> str:
    """The text with unprintable characters escaped as in Python."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
