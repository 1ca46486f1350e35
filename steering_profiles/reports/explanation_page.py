"""The page of a report on a layer."""

from collections.abc import Iterator

from steering_profiles.fitting import Explanation
from steering_profiles.reports import explanation_tables as tables
from steering_profiles.reports import plots
from steering_profiles.reports.blocks import Block, CodeBlock, Details, Page, Paragraph, Plot, Section
from steering_profiles.reports.text import number

CAUTION = (
    "On other prompts than those of the fit, the fit predicts the output no better than its mean does, so its "
    "coefficients explain little."
)
_MOST_HEADS = 10
"""Number of heads in the table that is not collapsed."""
_MOST_REASONS = 3
"""Maximum number of omissions that are not collapsed."""


def page_of_explanation(explanation: Explanation, command: str) -> Page:
    """Return the page of ``explanation``, which shows ``command`` as the command that reproduces it."""
    made = {
        "": _headline(explanation),
        "Coefficients of the inputs": _inputs(explanation),
        "Intercept": _intercept(explanation),
        "Contribution to the answer": iter((tables.answer_table(explanation),)),
        "Argument-passing heads": _argument_heads(explanation),
        "Reproduce this report": iter((CodeBlock(command),)),
    }
    whole = ((title, tuple(blocks)) for title, blocks in made.items())
    title = f"Layer {explanation.layer} on {explanation.task}"
    return Page(
        name=f"explain-{explanation.task}-layer-{explanation.layer}",
        window_title=f"{title}: {explanation.model.id}",
        title=title,
        about=f"Analysis of layer {explanation.layer} of {explanation.model.id} (layers 0 to "
        f"{explanation.model.layers - 1}) on the task {explanation.task}, at the last position of its prompts.",
        sections=tuple(Section(title, blocks) for title, blocks in whole if blocks),
    )


def _headline(explanation: Explanation) -> Iterator[Block]:
    ridge = f"ridge regression ({number(explanation.ridge)})" if explanation.ridge else "least squares"
    yield Paragraph(
        "The output of the layer's MLP is fitted as a linear combination of its inputs: MLP ≈ Σ w·(output of a head) + "
        "w·(residual stream before the layer) + b. Each input has one coefficient w. The coefficients and the "
        f"intercept b, which does not depend on the inputs, are fitted on the train prompts by {ridge}."
    )
    if explains_nothing(explanation):
        yield Paragraph(CAUTION, "worse")
    yield tables.quality_table(explanation)
    left_out = explanation.left_out
    if len(left_out) > _MOST_REASONS:
        yield Details(f"{len(left_out)} parts are left out", "\n".join(left_out))
    else:
        yield from (Paragraph(f"Left out: {reason}.") for reason in left_out)


def explains_nothing(explanation: Explanation) -> bool:
    """Return whether R² is at most 0 on all prompts other than those of the fit."""
    others = [value for split, value in explanation.r2.items() if split != "train"]
    return bool(others) and max(others) <= 0


def _inputs(explanation: Explanation) -> Iterator[Block]:
    yield Plot(
        "coefficients",
        "Coefficients of the heads and of the residual stream",
        "The MLP amplifies inputs with positive coefficients (orange) and weakens inputs with negative ones (blue). An "
        "input with coefficient −1 is erased from the residual stream.",
        lambda: plots.coefficients(explanation),
    )
    yield tables.coefficients_table(explanation)


def _intercept(explanation: Explanation) -> Iterator[Block]:
    yield Paragraph(
        "In other models, Lv et al. (arXiv:2403.19521) found that the intercept of a middle layer promotes answers of "
        "the task, while that of the final layer promotes tokens that are frequent in any text and suppresses the "
        "answer."
    )
    yield tables.tokens_table(explanation)


def _argument_heads(explanation: Explanation) -> Iterator[Block]:
    found = explanation.argument_heads
    if found is None:
        return
    yield Plot(
        "argument-heads",
        "Effect of each head on P(answer), and its attention to the topic",
        "Each cell is a head. Above: relative decrease of P(answer) when the head's output at the last position is "
        "replaced by its output on a prompt about another topic (orange; blue is an increase). Below: attention of the "
        "head from the last position to the topic. A head with high values in both moves the topic to the last "
        "position.",
        lambda: plots.argument_map(found, explanation.model.layers, explanation.model.heads),
    )
    yield tables.argument_table(found, _MOST_HEADS)
    yield Details("All heads", tables.argument_table(found, len(found.heads)))
