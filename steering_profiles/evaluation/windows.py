"""Texts cut into windows of tokens that a model can be asked to predict in one go."""

from collections.abc import Sequence
from dataclasses import dataclass

from steering_profiles.models import LoadedModel
from steering_profiles.tokenization import encode_prompt

MOST_TOKENS = 512
"""Tokens in a window of running text."""
MOST_TOKENS_WHOLE = 2048
"""Tokens in a window that holds a prompt and its continuation, which are not cut where they need not be."""


@dataclass(frozen=True)
class Window:
    """Tokens of which the first ``given`` are context, and each of the others is to be predicted from those before."""

    tokens: tuple[int, ...]
    given: int

    def __post_init__(self) -> None:
        if not 1 <= self.given <= len(self.tokens):
            raise ValueError(f"given is {self.given}; a window of {len(self.tokens)} tokens has 1..{len(self.tokens)}")

    @property
    def predicted(self) -> tuple[int, ...]:
        """The tokens to be predicted."""
        return self.tokens[self.given :]


def text_windows(loaded: LoadedModel, text: str, most: int = MOST_TOKENS) -> tuple[Window, ...]:
    """Cut ``text`` into windows of at most ``most`` tokens, and never more than the model takes.

    Each token is predicted once. A window begins with the token before it, so that its own first token can be predicted
    too, and with a beginning-of-text token if the tokenizer puts one before any text. Without one the very first token
    of the text has nothing to be predicted from and is left out.
    """
    start = _start(loaded)
    most = min(most, loaded.context_length)
    room = most - len(start) - 1
    if room < 1:
        raise ValueError(f"a window of {most} tokens has no room for a token and its context")
    tokens: list[int] = loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    context, tokens = (start, tokens) if start else (tuple(tokens[:1]), tokens[1:])
    windows = []
    for position in range(0, len(tokens), room):
        piece = tokens[position : position + room]
        windows.append(Window((*context, *piece), len(context)))
        context = (*start, piece[-1])
    return tuple(windows)


def continuation_window(loaded: LoadedModel, prompt: str, continuation: str) -> Window:
    """Return the window in which ``continuation`` is predicted given ``prompt``.

    Both are tokenized as one text, since that is how a tokenizer joins them; every token that holds some of the
    continuation is predicted. Where the whole is longer than the model takes, the prompt loses its beginning.
    """
    whole = encode_prompt(loaded.tokenizer, prompt + continuation)
    given = max(1, _common_prefix(encode_prompt(loaded.tokenizer, prompt), whole))
    excess = max(0, len(whole) - min(MOST_TOKENS_WHOLE, loaded.context_length))
    return Window(whole[excess:], max(1, given - excess))


def _start(loaded: LoadedModel) -> tuple[int, ...]:
    """Return the beginning-of-text token, if the tokenizer adds one by itself."""
    first = encode_prompt(loaded.tokenizer, "a")[:1]
    return first if first == (loaded.tokenizer.bos_token_id,) else ()


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
