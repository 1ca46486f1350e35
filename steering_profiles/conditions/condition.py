"""The condition of a profile, as its file has it: ``{"all": [{"part": "completion"}, {"ends_with": ["("]}]}``.

A condition is tested at every position of a sequence. It sees the tokens up to and including that position, never a
later one, so that its result does not depend on how the sequence is cut into forward passes. The text of the tokens is
that of :class:`steering_profiles.tokenization.Vocabulary`: special tokens count with their spelling.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from steering_profiles.conditions.patterns import compiled

MOST_PARTS = 64
"""Conditions of one profile, those within others included."""
MOST_DEPTH = 8
MOST_TEXTS = 64
MOST_CHARACTERS = 256
MOST_TOKENS = 4096


def _pattern(pattern: str) -> str:
    compiled(pattern)
    return pattern


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"contains a lone surrogate, {text[exc.start]!r}, which is not valid text") from exc
    return text


_Ending = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS), AfterValidator(_encodable)]
_Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MOST_CHARACTERS),
    AfterValidator(_encodable),
    AfterValidator(_pattern),
]
_Index = Annotated[int, Field(strict=True, ge=0)]


def _absent(alias: str | None = None) -> Any:
    return Field(default=None, alias=alias, exclude_if=lambda value: value is None)


class Condition(BaseModel):
    """One condition: exactly one of the fields is given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    last_token: Annotated[tuple[_Index, ...] | None, Field(min_length=1, max_length=MOST_TOKENS)] = _absent()
    """Holds where the token is one of these."""
    ends_with: Annotated[tuple[_Ending, ...] | None, Field(min_length=1, max_length=MOST_TEXTS)] = _absent()
    """Holds where the text so far ends with one of these."""
    matches: _Pattern | None = _absent()
    """Holds where the text so far ends with a match of this pattern (:mod:`.patterns`)."""
    inside: Literal["code_block"] | None = _absent()
    """Holds inside a fenced code block of Markdown, from the end of the line that opens it."""
    part: Literal["prompt", "completion", "last_prompt_token"] | None = _absent()
    """``completion`` holds where a token of the completion is predicted, the last token of the prompt included;
    ``prompt`` holds before that. ``last_prompt_token`` holds there alone, where the first one is predicted."""
    from_position: _Index | None = _absent()
    """Holds at this position, counted from 0, and all later ones."""
    all_: Annotated[tuple["Condition", ...] | None, Field(min_length=1)] = _absent("all")
    """Holds where all of these do."""
    any_: Annotated[tuple["Condition", ...] | None, Field(min_length=1)] = _absent("any")
    """Holds where at least one of these does."""
    not_: "Condition | None" = _absent("not")
    """Holds where this does not."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        keys = {field.alias or name: name for name, field in type(self).model_fields.items()}
        given = [key for key, name in keys.items() if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a condition has exactly one of {', '.join(keys)}; this one has {' and '.join(given) or 'none'}; "
                "several are joined by all or any"
            )
        depth, parts = self._depth, sum(1 for _ in self)
        if depth > MOST_DEPTH or parts > MOST_PARTS:
            raise ValueError(
                f"the condition has {parts} parts in {depth} levels; allowed: {MOST_PARTS} parts, {MOST_DEPTH} levels"
            )
        return self

    @property
    def within(self) -> tuple["Condition", ...]:
        """The conditions that this one joins; empty for one that tests the text."""
        return self.all_ or self.any_ or (() if self.not_ is None else (self.not_,))

    def __iter__(self) -> Iterator["Condition"]:  # type: ignore[override]  # pydantic's would yield fields
        """Yield this condition and all within it."""
        yield self
        for one in self.within:
            yield from one

    @property
    def tests_part(self) -> bool:
        """Whether the result depends on where the prompt ends, and not on the tokens alone."""
        return any(one.part is not None for one in self)

    @property
    def largest_token(self) -> int:
        """The largest token that it names; -1 if it names none."""
        return max((token for one in self for token in one.last_token or ()), default=-1)

    def __str__(self) -> str:
        """Return it as a clause, which reads well after *where* and *that*: ``the last token is 7``."""
        if self.last_token is not None:
            return f"the last token is {_either([str(token) for token in self.last_token])}"
        if self.ends_with is not None:
            return f"the text ends with {_either([repr(text) for text in self.ends_with])}"
        if self.matches is not None:
            return f"the text ends with a match of {self.matches}"
        if self.inside is not None:
            return "the position is inside a code block"
        if self.part is not None:
            is_last = self.part == "last_prompt_token"
            return "the position is the last of the prompt" if is_last else f"the position is in the {self.part}"
        if self.from_position is not None:
            return f"the position is {self.from_position} or later"
        if self.not_ is not None:
            return f"not ({self.not_})"
        return (" and " if self.all_ else " or ").join(f"({one})" if one.within else str(one) for one in self.within)

    @property
    def _depth(self) -> int:
        return 1 + max((one._depth for one in self.within), default=0)


def _either(named: list[str]) -> str:
    shown = named if len(named) <= 5 else [*named[:4], f"{len(named) - 4} others"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
