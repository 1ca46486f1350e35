"""Windows of tokens, each of which a model predicts in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from steering_profiles.models import LoadedModel
from steering_profiles.tokenization import encode_prompt

MOST_TOKENS = 512
"""Maximum number of tokens in a window of running text."""
MOST_TOKENS_WHOLE = 2048
"""Maximum number of tokens in a window with a prompt and its continuation."""


@dataclass(frozen=True)
class Window:
    """A sequence of tokens: the first ``given`` are context, each of the others is predicted from those before it."""

    tokens: tuple[int, ...]
    given: int

    def __post_init__(self) -> None:
        if not 1 <= self.given <= len(self.tokens):
            raise ValueError(f"given is {self.given}; allowed: 1 to {len(self.tokens)}, the number of tokens")

    @property
    def predicted(self) -> tuple[int, ...]:
        """The tokens to predict."""
        return self.tokens[self.given :]


def text_windows(loaded: LoadedModel, text: str, most: int = MOST_TOKENS) -> tuple[Window, ...]:
    """Cut ``text`` into windows of at most ``most`` tokens, and at most the model's context length.

    Each token is predicted once. A window starts with the beginning-of-text token, if the tokenizer adds one, and the
    last token of the window before it. Without a beginning-of-text token, the first token of the text is not predicted.

    Raises:
        ValueError: ``most`` leaves no room for a token and its context.
    """
    start = _start(loaded)
    most = min(most, loaded.context_length)
    room = most - len(start) - 1
    if room < 1:
        raise ValueError(f"most is {most}; allowed: at least {len(start) + 2}, for one token and its context")
    tokens: list[int] = loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    context, tokens = (start, tokens) if start else (tuple(tokens[:1]), tokens[1:])
    windows = []
    for position in range(0, len(tokens), room):
        chunk = tokens[position : position + room]
        windows.append(Window((*context, *chunk), len(context)))
        context = (*start, chunk[-1])
    return tuple(windows)


def continuation_window(loaded: LoadedModel, prompt: str, continuation: str) -> Window:
    """Return the window in which ``continuation`` is predicted from ``prompt``.

    Both are tokenized as one text. Every token that contains part of the continuation is predicted. If the window is
    too long, tokens at the start of the prompt are dropped.
    """
    whole = encode_prompt(loaded.tokenizer, prompt + continuation)
    given = max(1, common_prefix(encode_prompt(loaded.tokenizer, prompt), whole))
    return fitted_window(loaded, whole, given)


def fitted_window(loaded: LoadedModel, tokens: Sequence[int], given: int) -> Window:
    """Return the window of ``tokens``, without those at the start that are too many for the model's context."""
    excess = max(0, len(tokens) - min(MOST_TOKENS_WHOLE, loaded.context_length))
    return Window(tuple(tokens[excess:]), max(1, given - excess))


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens that both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _start(loaded: LoadedModel) -> tuple[int, ...]:
    """Return the beginning-of-text token if the tokenizer adds one, else nothing."""
    first = encode_prompt(loaded.tokenizer, "a")[:1]
    return first if first == (loaded.tokenizer.bos_token_id,) else ()
