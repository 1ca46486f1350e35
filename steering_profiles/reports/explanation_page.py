"""What the page of an explanation says, and in which order."""

from collections.abc import Iterator

from steering_profiles.fitting import Explanation
from steering_profiles.reports import explanation_tables as tables
from steering_profiles.reports import plots
from steering_profiles.reports.blocks import Block, CodeBlock, Details, Page, Paragraph, Plot, Section
from steering_profiles.reports.text import number

CAUTION = (
    "On prompts that it was not fitted to, the fit tells no more than the mean output does: read its coefficients with "
    "caution."
)
_MOST_HEADS = 10
_MOST_REASONS = 3


def page_of_explanation(explanation: Explanation, command: str) -> Page:
    """Return the page that ``explanation`` makes; ``command`` is what makes it again."""
    made = {
        "": _headline(explanation),
        "What the MLP makes of its inputs": _inputs(explanation),
        "What it adds whatever they say": _intercept(explanation),
        "What that does to the answer": iter((tables.answer_table(explanation),)),
        "Which heads bring the topic": _argument_heads(explanation),
        "Make this report again": iter((CodeBlock(command),)),
    }
    whole = ((title, tuple(blocks)) for title, blocks in made.items())
    title = f"Layer {explanation.layer} on {explanation.task}"
    return Page(
        name=f"explain-{explanation.task}-layer-{explanation.layer}",
        window_title=f"{title}: {explanation.model.id}",
        title=title,
        about=f"What layer {explanation.layer} of {explanation.model.id} (layers 0 to {explanation.model.layers - 1}) "
        f"does for {explanation.task}, at the last position of its prompts.",
        sections=tuple(Section(title, blocks) for title, blocks in whole if blocks),
    )


def _headline(explanation: Explanation) -> Iterator[Block]:
    ridge = f"ridge {number(explanation.ridge)}" if explanation.ridge else "plain least squares"
    yield Paragraph(
        "The output of the layer's MLP is explained by what entered it: MLP ≈ Σ w·(what a head adds) + w·(the residual "
        "stream before the layer) + b. One coefficient w for each, fitted on the train prompts by "
        f"{ridge}; the intercept b is what the MLP adds whatever its inputs say."
    )
    if tells_nothing(explanation):
        yield Paragraph(CAUTION, "worse")
    yield tables.quality_table(explanation)
    left_out = explanation.left_out
    if len(left_out) > _MOST_REASONS:
        yield Details(f"{len(left_out)} things are left out", "\n".join(left_out))
    else:
        yield from (Paragraph(f"Left out: {reason}.") for reason in left_out)


def tells_nothing(explanation: Explanation) -> bool:
    """Return whether the fit explains nothing of the prompts that it was not made on."""
    others = [value for split, value in explanation.r2.items() if split != "train"]
    return bool(others) and max(others) <= 0


def _inputs(explanation: Explanation) -> Iterator[Block]:
    yield Plot(
        "coefficients",
        "Coefficients of the heads and of the residual stream",
        "Orange: what the MLP adds to the residual stream once more, so that it is amplified. Blue: what it takes "
        "away. At −1 it would be erased.",
        lambda: plots.coefficients(explanation),
    )
    yield tables.coefficients_table(explanation)


def _intercept(explanation: Explanation) -> Iterator[Block]:
    yield Paragraph(
        "What Lv et al. (arXiv:2403.19521) found elsewhere: in a middle layer the intercept pushes to the answers "
        "of the task, in the final layer to what is frequent in any text, away from the answer."
    )
    yield tables.tokens_table(explanation)


def _argument_heads(explanation: Explanation) -> Iterator[Block]:
    found = explanation.argument_heads
    if found is None:
        return
    yield Plot(
        "argument-heads",
        "Effect of every head, and its attention to the topic",
        "Each cell is a head, layers from left (first) to right (last). Above: how much P(answer) falls, as a share of "
        "what it was, when the head's output at the last position is taken from a prompt of another topic (orange; "
        "blue where it rises). Below: how much of its attention goes from the last position to the topic. A head that "
        "is bright in both brings the topic to where it is answered.",
        lambda: plots.argument_map(found, explanation.model.layers, explanation.model.heads),
    )
    yield tables.argument_table(found, _MOST_HEADS)
    yield Details("All heads", tables.argument_table(found, len(found.heads)))
