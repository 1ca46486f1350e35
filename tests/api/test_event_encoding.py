"""Events of a stream: what each says is what it would say if it were formatted as a whole, in one line."""

from hypothesis import given
from hypothesis import strategies as st

from steering_server.api.event_encoding import EventEncoder
from steering_server.api.schemas.responses import (
    Applied,
    AppliedArms,
    AppliedProfile,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatDelta,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Effective,
    Usage,
)

TEXTS = st.text() | st.sampled_from(
    ['"choices":[]', '\\"choices":[]', "a\r\nb", "\u2028\u2029\x85\x0b\x1c", "data: x\n\n"]
)
EFFECTIVE = Effective(heads=1, neurons=0, own_attention=0.5, intercept_scale=1, gate=None)


@st.composite
def steerings(draw: st.DrawFn) -> Applied | AppliedArms:
    def applied(name: str) -> Applied:
        profile = AppliedProfile(profile=name, content_hash="sha256:0", strength=1.5)
        return Applied(
            arm=name,
            profile=name,
            content_hash=None,
            strength=1.5,
            profiles=(profile,),
            effective=EFFECTIVE,
            warnings=(name,),
        )

    names = draw(st.lists(TEXTS, min_size=1, max_size=3))
    return applied(names[0]) if len(names) == 1 else AppliedArms(arms=tuple(applied(name) for name in names))


@st.composite
def streams(draw: st.DrawFn) -> list[Completion | ChatCompletionChunk]:
    """The events of one stream."""
    common = {"id": draw(TEXTS), "created": 1, "model": draw(TEXTS), "steering": draw(steerings())}

    def completion() -> Completion:
        logprobs = draw(
            st.none()
            | st.builds(
                CompletionLogprobs,
                tokens=st.lists(TEXTS, max_size=2),
                token_logprobs=st.just([None]),
                top_logprobs=st.none(),
                text_offset=st.just([0]),
            )
        )
        choice = CompletionChoice(
            index=draw(st.integers(0, 3)),
            text=draw(TEXTS),
            logprobs=logprobs,
            finish_reason=draw(st.sampled_from([None, "stop"])),
            arm=draw(st.none() | TEXTS),
        )
        return Completion(choices=[choice], **common)

    def chat() -> ChatCompletionChunk:
        delta = ChatDelta(content=draw(TEXTS)) if draw(st.booleans()) else ChatDelta(role="assistant")
        choice = ChatChunkChoice(index=0, delta=delta, finish_reason=None, arm=draw(st.none() | TEXTS))
        return ChatCompletionChunk(choices=[choice], **common)

    make = draw(st.sampled_from([completion, chat]))
    events = [make() for _ in range(draw(st.integers(1, 3)))]
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    return [*events, type(events[0])(choices=[], usage=usage, **common), make()]


@given(streams())
def test_events_say_the_same_as_each_formatted_as_a_whole(stream: list[Completion | ChatCompletionChunk]):
    encode = EventEncoder()
    for body in stream:
        whole = body.model_dump_json()
        for character, escaped in (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
            whole = whole.replace(character, escaped)
        assert encode(body) == f"data: {whole}\n\n".encode()


@given(streams())
def test_an_event_is_one_line_for_every_way_of_splitting_lines(stream: list[Completion | ChatCompletionChunk]):
    encode = EventEncoder()
    for body in stream:
        line, nothing = encode(body).decode().splitlines()
        assert nothing == ""
        assert type(body).model_validate_json(line.removeprefix("data: ")) == body
