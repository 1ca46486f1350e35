r"""Tasks from the user's own files, with one JSON object per line (JSON Lines).

::

    {"prompt": "A ripe lemon is", "answer": " yellow", "candidates": [" yellow", " red"], "group": "yellow"}

``prompt`` and ``answer`` are required. The answer is used exactly as written, including a leading space, and must be
one token after the prompt, unless ``whole`` is true: then all of its tokens must be generated, and nothing that goes on
with it. ``candidates`` are the possible answers, including the correct one. ``group`` is the sub-task. Without it a
line with candidates belongs to the sub-task of its answer, and any other line to the sub-task named like the file. If
hardly any answer occurs several times, all these lines belong to the sub-task of the file. ``split`` is ``train``,
``dev`` or ``test``, on all lines or on none.

Lines that cannot be used are left out with the reason. It is an error only if too few lines remain.
"""

import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from steering_profiles.errors import TaskError
from steering_profiles.schema import BASELINE
from steering_profiles.tasks.continuation import answer_after, tokens_after
from steering_profiles.tasks.task import Example, Task
from steering_profiles.tokenization import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
PROPORTIONS: dict[Split, int] = {"train": 350, "dev": 150, "test": 150}
"""Proportions of the splits of each group, if the file does not give splits."""
FEWEST = 4
"""Minimum number of examples per split."""

MAX_FILE_BYTES = 64 * 2**20
MAX_PROMPT_TOKENS = 4096
MAX_PROMPT_CHARACTERS = 32 * MAX_PROMPT_TOKENS
"""Longer prompts are rejected before they are tokenised."""
MAX_CANDIDATES = 256
MAX_ANSWER_TOKENS = 64

_SHOWN_REASONS = 3
_SHOWN_CHARACTERS = 40
_PROFILE_NAME_LENGTH = 64


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("contains characters that are not printable")
    return text


# With a length constraint pydantic rejects lone surrogates, which JSON allows and tokenizers do not.
_Text = Annotated[str, Field(min_length=1)]


class Line(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    answer: _Text
    candidates: Annotated[list[_Text], Field(min_length=2, max_length=MAX_CANDIDATES)] | None = None
    group: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)] | None = None
    split: Split | None = None
    whole: bool = False


class _Unusable(Exception):
    """Raised for a line that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class _Usable:
    """A line that can be used, with its tokens."""

    number: int
    line: Line
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    """One token, or several of a whole answer."""
    candidates: tuple[int, ...]
    """Tokens that the answer is chosen from; empty for whole answers."""

    def example(self, group: str) -> Example:
        """Return the example of this line, which belongs to ``group``."""
        first, *rest = self.answer
        ends_with = self.line.answer[-1] if self.line.whole else ""
        return Example(
            group, self.line.prompt, self.prompt, first, self.candidates, rest=tuple(rest), ends_with=ends_with
        )


def name_of(path: str | Path) -> str:
    """Return the name of the task in the file at ``path``: its stem, reduced to the characters of profile names."""
    plain = unicodedata.normalize("NFKD", Path(path).stem).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")[:_PROFILE_NAME_LENGTH]
    return f"{name}-task" if name == BASELINE else name or "task"


def jsonl_task(path: str | Path, tokenizer: "PreTrainedTokenizerBase", seed: int = 0) -> Task:
    """Read the task in the file at ``path``, for ``tokenizer``.

    If the file has no splits, the lines of each group are split 350 : 150 : 150 at random, by ``seed``. No prompt is
    used twice. ``left_out`` lists every line that cannot be used, with the reason.

    Raises:
        TaskError: the file cannot be read, only some lines have ``split``, or too few lines can be used.
    """
    from steering_profiles.models.quiet import quietly  # not at the top, since it imports torch

    path = Path(path)
    reasons: dict[int, str] = {}
    usable: list[_Usable] = []
    with quietly():  # no warnings of the tokenizer about long prompts, which get a reason here
        _collect(_lines(path), tokenizer, usable, reasons)
    grouped = _by_group(usable, name_of(path))
    splits = _given_splits(path, usable) if any(item.line.split for item in usable) else _drawn_splits(grouped, seed)
    kept: dict[str, list[_Usable]] = {}
    for group, items in grouped.items():
        missing = set(SPLITS) - {splits[item.number] for item in items}
        if missing:
            reasons |= {item.number: _too_small(group, len(items), missing) for item in items}
        else:
            kept[group] = items
    examples: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    for group, items in kept.items():
        for item in items:
            examples[splits[item.number]].append(item.example(group))
    left_out = [f"line {number}: {reason}" for number, reason in sorted(reasons.items())]
    _require_enough(path, examples, left_out)
    return Task(
        name=name_of(path),
        seed=seed,
        groups=tuple(kept),
        train=tuple(examples["train"]),
        dev=tuple(examples["dev"]),
        test=tuple(examples["test"]),
        left_out=tuple(left_out),
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line that is not blank, with its number from 1."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # a null byte in the path is a ValueError
        raise TaskError(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise TaskError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB, the maximum size of a task file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise TaskError(f"{path}: not UTF-8: byte {content[exc.start]:#04x} in line {line}") from exc
    # Not splitlines(), which also splits at characters that JSON strings may contain.
    yield from ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _collect(
    lines: Iterator[tuple[int, str]],
    tokenizer: "PreTrainedTokenizerBase",
    usable: list[_Usable],
    reasons: dict[int, str],
) -> None:
    """Add each of ``lines`` to ``usable``, or the reason why it cannot be used to ``reasons``."""
    first: dict[str, _Usable] = {}
    for number, text in lines:
        try:
            item = _use(number, _parse(text), tokenizer)
            earlier = first.setdefault(item.line.prompt, item)
            if earlier is not item:
                differs = "" if earlier.line.answer == item.line.answer else ", with another answer"
                raise _Unusable(f"repeats the prompt of line {earlier.number}{differs}")
            usable.append(item)
        except _Unusable as exc:
            reasons[number] = str(exc)


def _parse(text: str) -> Line:
    try:
        content = json.loads(text, object_pairs_hook=_unrepeated)
    except json.JSONDecodeError as exc:
        raise _Unusable(f"not JSON: {exc.msg} at character {exc.pos + 1}") from exc
    except RecursionError as exc:
        raise _Unusable("JSON that is nested too deeply") from exc
    except ValueError as exc:  # such as a number that is too long
        raise _Unusable(f"JSON that cannot be read: {exc}") from exc
    if not isinstance(content, dict):
        raise _Unusable(f"not a JSON object: {_shown(content)}")
    try:
        return Line.model_validate(content)
    except ValidationError as exc:
        raise _Unusable("; ".join(_fault(error) for error in exc.errors())) from exc


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _Unusable(f"{_shown(name)} is given more than once")
    return content


def _use(number: int, line: Line, tokenizer: "PreTrainedTokenizerBase") -> _Usable:
    """Return ``line`` with its tokens.

    Raises:
        _Unusable: it cannot be used with ``tokenizer``.
    """
    prompt = encode_prompt(tokenizer, line.prompt)
    limit = min(MAX_PROMPT_TOKENS, tokenizer.model_max_length or MAX_PROMPT_TOKENS)
    if len(prompt) > limit:
        raise _Unusable(f"prompt is {len(prompt)} tokens in this tokenizer; at most {limit} are allowed")
    if not prompt:
        raise _Unusable(f"prompt {_shown(line.prompt)} has no tokens in this tokenizer")
    answer = _tokens(tokenizer, line, prompt, line.answer, "answer")
    if line.candidates is None:
        return _Usable(number, line, prompt, answer, ())
    if line.answer not in line.candidates:
        raise _Unusable(f"answer {_shown(line.answer)} is not among the candidates")
    seen: dict[tuple[int, ...], str] = {}
    for text in line.candidates:
        tokens = _tokens(tokenizer, line, prompt, text, "candidate")
        if tokens in seen:
            same = f"candidates {_shown(seen[tokens])} and {_shown(text)} are the same token"
            raise _Unusable(same if len(tokens) == 1 else f"{same}s")
        seen[tokens] = text
    return _Usable(number, line, prompt, answer, () if line.whole else tuple(tokens[0] for tokens in seen))


def _tokens(
    tokenizer: "PreTrainedTokenizerBase", line: Line, prompt: tuple[int, ...], added: str, what: str
) -> tuple[int, ...]:
    """Return the tokens of an answer or a candidate of ``line``; one, unless the line asks for the whole answer.

    Raises:
        _Unusable: it has no such tokens.
    """
    tokens = tokens_after(tokenizer, line.prompt, prompt, added)
    if tokens is None:
        fault = f"{what} {_shown(added)} merges with the end of the prompt in this tokenizer"
    elif line.whole and len(tokens) > MAX_ANSWER_TOKENS:
        fault = (
            f"{what} {_shown(added)} is {len(tokens)} tokens in this tokenizer; at most {MAX_ANSWER_TOKENS} are allowed"
        )
    elif len(tokens) != 1 and not (line.whole and tokens):
        fault = (
            f"{what} {_shown(added)} is {len(tokens)} tokens in this tokenizer; it must be one, or the line must have "
            '"whole": true'
        )
    elif tokenizer.unk_token_id in tokens:
        fault = f"{what} {_shown(added)} is unknown to this tokenizer"
    else:
        return tokens
    raise _Unusable(fault + _hint(tokenizer, line, prompt, added))


def _hint(tokenizer: "PreTrainedTokenizerBase", line: Line, prompt: tuple[int, ...], added: str) -> str:
    """Return a hint if moving the space between prompt and answer would help, otherwise an empty string."""
    text = line.prompt
    bare = text.rstrip(" ")
    if bare and bare != text and not added.startswith(" "):
        moved = f" {added}"
        works = answer_after(tokenizer, bare, encode_prompt(tokenizer, bare), moved, line.whole) is not None
        return f"; without the space at the prompt's end {_shown(moved)} would work" if works else ""
    other, how = (added.lstrip(" "), "without the") if added.startswith(" ") else (f" {added}", "with a")
    works = bool(other) and answer_after(tokenizer, text, prompt, other, line.whole) is not None
    return f"; {_shown(other)}, {how} leading space, would work" if works else ""


def _by_group(usable: Sequence[_Usable], of_file: str) -> dict[str, list[_Usable]]:
    """Return the lines of each group, in the order of the file."""
    without = [item for item in usable if item.line.group is None and item.line.candidates is not None]
    times = Counter(item.line.answer for item in without)
    answers_repeat = sum(count >= len(SPLITS) for count in times.values()) > 1
    grouped: dict[str, list[_Usable]] = {}
    for item in usable:
        answer = item.line.answer if item.line.answer.isprintable() else repr(item.line.answer)
        default = answer if item.line.candidates is not None and answers_repeat else of_file
        grouped.setdefault(item.line.group or default, []).append(item)
    return grouped


def _given_splits(path: Path, usable: Sequence[_Usable]) -> dict[int, Split]:
    """Return the split of each line by its number.

    Raises:
        TaskError: a line has no split.
    """
    splits = {item.number: item.line.split for item in usable}
    given = {number: split for number, split in splits.items() if split is not None}
    if len(given) < len(splits):
        lacking = next(number for number, split in splits.items() if split is None)
        raise TaskError(
            f"{path}: split is given on {len(given)} of {len(splits)} usable lines, such as line {next(iter(given))}, "
            f"and not on line {lacking}; give it on all of them or on none"
        )
    return given


def _drawn_splits(grouped: dict[str, list[_Usable]], seed: int) -> dict[int, Split]:
    """Split the lines of each group randomly; a group of at least three lines has some in every split."""
    splits: dict[int, Split] = {}
    for group, items in grouped.items():
        numbers = [item.number for item in items]
        random.Random(f"jsonl {seed} {group}").shuffle(numbers)
        held_out = {
            split: max(1, round(len(numbers) * PROPORTIONS[split] / sum(PROPORTIONS.values()))) for split in SPLITS[1:]
        }
        for split, size in held_out.items():
            splits |= dict.fromkeys(numbers[:size], split)
            del numbers[:size]
        splits |= dict.fromkeys(numbers, "train")
    return splits


def _too_small(group: str, count: int, missing: set[Split]) -> str:
    lacking = " and ".join(split for split in SPLITS if split in missing)
    return (
        f"group {_shown(group)} has {count} usable {'line' if count == 1 else 'lines'} and none for {lacking}; every "
        f'group needs at least one line in each split (set "group" to join lines with different answers)'
    )


def _require_enough(path: Path, examples: dict[Split, list[Example]], left_out: Sequence[str]) -> None:
    count = sum(map(len, examples.values()))
    first = "; ".join(left_out[:_SHOWN_REASONS])
    more = f"; and {len(left_out) - _SHOWN_REASONS} more" if len(left_out) > _SHOWN_REASONS else ""
    if not count:
        raise TaskError(f"{path}: no line can be used: {first}{more}" if left_out else f"{path}: the file has no lines")
    if any(len(made) < FEWEST for made in examples.values()):
        sizes = ", ".join(f"{len(made)} {split}" for split, made in examples.items())
        raise TaskError(
            f"{path}: {count} usable lines make {sizes}; each needs at least {FEWEST}"
            + (f". Left out: {first}{more}" if left_out else "")
        )


def _fault(error: ErrorDetails) -> str:
    if not error["loc"]:
        return f"field {_shown(error['input'])}: {error['msg']}"
    field, *inside = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"unknown field {_shown(field)}; allowed are {', '.join(Line.model_fields)}"
    where = ".".join([str(field), *(str(part) for part in inside)])
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _shown(value: object) -> str:
    """Return the ``repr`` of ``value``, shortened if it is long, so that control characters are escaped."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
