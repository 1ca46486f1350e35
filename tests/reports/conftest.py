"""Pages that several tests read, since rendering one takes seconds."""

import pytest

from steering_profiles.reports import Report, render_html, render_markdown
from tests.reports.reading import Page
from tests.reports.samples import HOSTILE, accuracy, attention, profile, ranking, whole


@pytest.fixture(scope="session")
def page() -> Page:
    """The page of a report with everything in it."""
    return Page(render_html(whole()))


@pytest.fixture(scope="session")
def markdown() -> str:
    return render_markdown(whole())


def _hostile() -> Report:
    groups = (HOSTILE, HOSTILE + "\n2")
    origin = profile().provenance
    assert origin is not None
    facts = {HOSTILE: HOSTILE, "long": [HOSTILE] * 9}
    return whole(
        profile=profile(
            description=HOSTILE,
            model=profile().model.model_copy(update={"id": HOSTILE}),
            provenance=origin.model_copy(update={"task": HOSTILE, "command": HOSTILE, "grid": facts}),
        ),
        command=HOSTILE + "\n```\n~~~",
        accuracy={name: (accuracy(2, 3, groups=groups), accuracy(1, 4, groups=groups)) for name in ("test", HOSTILE)},
        ranking=ranking(groups),
        attention=(
            attention(("<script>", "</svg><script>", "|", "`", "\\|", "\x00", "\u202e", "$a$", "\ud800", "日本")),
        ),
    )


@pytest.fixture(scope="session")
def hostile_page() -> Page:
    """The page of a report in which every text contains markup."""
    return Page(render_html(_hostile()))


@pytest.fixture(scope="session")
def hostile_markdown() -> str:
    return render_markdown(_hostile())
