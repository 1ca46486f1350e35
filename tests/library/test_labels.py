"""Labels name profiles and their strength; what is printed can be read again."""

from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.errors import LabelError
from steering_profiles.labels import MAX_PROFILES, Label, parse_label
from steering_profiles.schema import BASELINE, MAX_STRENGTH

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True).filter(lambda name: name != BASELINE)
labels = st.builds(
    Label,
    st.lists(names, min_size=1, max_size=MAX_PROFILES).map(tuple),
    st.floats(-MAX_STRENGTH, MAX_STRENGTH).map(lambda strength: strength + 0.0),
)


@given(st.just(Label()) | labels)
def test_a_label_that_is_printed_is_read_as_the_same(label: Label):
    assert parse_label(str(label)) == label


@given(st.text() | st.from_regex(r"[a@+.e0-9-]{0,12}", fullmatch=True))
def test_any_text_is_a_label_or_refused_in_one_short_line(text: str):
    label = refused = None
    try:
        label = parse_label(text)
    except LabelError as exc:
        refused = str(exc)
    if label is None:
        assert refused is not None
        assert len(refused) < 200
        assert "\n" not in refused
    else:
        assert parse_label(str(label)) == label
        assert -MAX_STRENGTH <= label.strength <= MAX_STRENGTH
