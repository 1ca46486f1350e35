"""What ``steer evaluate`` prints and writes of side effects."""

import io

from rich.console import Console

from steering_profiles.evaluation import Accuracy, SideEffects, TextEffect
from steering_profiles.evaluation.side_effects import LastWordsEffect, PairsEffect, PairsEffects
from steering_server.cli.measurements import Measurement

SETS = {"test": (Accuracy({")": (1, 2)}), Accuracy({")": (2, 2)}))}
QUIET = TextEffect("prose", 1000, 2.0, 2.002, 0.99, interval=(-0.001, 0.003))


def pairs(after: float, interval: tuple[float, float]) -> PairsEffects:
    return PairsEffects(
        PairsEffect("all phenomena", 96, (0.9, 0.9), (-0.01, 0.01), (4.0, 4.0), (-0.1, 0.1)),
        (PairsEffect("articles", 48, (1.0, after), interval, (4.0, 4.0), (-0.1, 0.1)),),
    )


def shown(measurement: Measurement) -> list[str]:
    text = io.StringIO()
    measurement.show(Console(file=text, width=200))
    return text.getvalue().splitlines()


def test_a_loss_of_minimal_pairs_is_a_flag_and_its_row_comes_first():
    measured = Measurement("x", SETS, SideEffects((QUIET,), minimal_pairs=pairs(0.9, (-0.2, -0.02))))
    lines = shown(measured)
    assert "loss above the limit of 1 point: minimal pairs, articles -10.0 points" in lines
    rows = [line for line in lines if "pairs" in line or "tokens" in line]
    assert "articles" in rows[0]
    assert "worse" in rows[0]
    assert measured.record()["flags"] == ["minimal pairs, articles -10.0 points"]
    assert measured.record()["share_limit"] == 0.01


def test_side_effects_below_all_limits_are_said_to_be_within_them():
    words = LastWordsEffect(440, (0.3, 0.28), (-0.05, 0.01), (3.0, 3.1), (-0.01, 0.05))
    lines = shown(Measurement("x", SETS, SideEffects((QUIET,), words, pairs(0.98, (-0.06, 0.0)))))
    assert "side effects are within the limits: +1.0% of the NLL, 1 point of last words and minimal pairs" in lines
    assert not [line for line in lines if line.startswith(("loss above", "NLL increase above"))]


def test_pass_at_1_comes_with_how_coarse_it_is():
    solved = tuple(Accuracy({"HumanEval": (count, 164)}) for count in (7, 7))
    text = " ".join(" ".join(shown(Measurement("x", SETS, pass_at_1=(solved[0], solved[1])))).split())
    assert "HumanEval pass@1, 164 problems, greedy, %: 4.3 -> 4.3" in text
    assert "Pass@1 is coarse: 7 of 164 problems are solved without the profile and 7 with it" in text
    assert "at least 6 problems change, all of them in one direction" in text
