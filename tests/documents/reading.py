"""The README and the documents, and the code blocks in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    document: str
    number: int
    """Its place among the blocks of its language in the document, from 0."""
    language: str
    code: str
    output: "Block | None"
    """The block of JSON or text that shows what it prints."""

    @property
    def id(self) -> str:
        """Its name, such as ``docs/http-api.md sh 2``."""
        return f"{self.document} {self.language} {self.number}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block that is made of plain commands."""
        lines = re.sub(r"\\\n\s*", "", self.code).splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def read(document: str) -> str:
    """Return the text of a document."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """Return the code blocks of a document, in order."""
    found: list[Block] = []
    text = read(document)
    matches = list(_BLOCK.finditer(text))
    languages = [match["language"] for match in matches]
    for place, match in reversed(list(enumerate(matches))):
        language = match["language"]
        output = None
        if found and language in ("sh", "python") and found[-1].language in ("json", "text"):
            same_section = "\n#" not in text[match.end() : matches[place + 1].start()]
            output = found[-1] if same_section else None
        found.append(Block(document, languages[:place].count(language), language, match["code"], output))
    return found[::-1]


def all_blocks(*languages: str) -> list[Block]:
    """Return the code blocks of all documents in these languages."""
    return [block for document in DOCUMENTS for block in blocks(document) if block.language in languages]


def inline_code(document: str) -> list[str]:
    """Return the texts between backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", _BLOCK.sub("", read(document)))
