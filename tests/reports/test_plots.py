"""Plots: valid SVG that says what the data say, whatever its size."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.grid import GridPoint, MeasuredPoint
from steering_profiles.reports import RankedComponent, ReportedRanking
from steering_profiles.reports.plots.attention import attention_maps
from steering_profiles.reports.plots.grid import grid_map
from steering_profiles.reports.plots.path import path_plot
from steering_profiles.reports.plots.ranking import accuracy_histograms, precision_recall
from steering_profiles.reports.plots.scales import head_scales, neurons_per_layer
from steering_profiles.reports.plots.style import ORANGE, WIDTH, to_svg
from steering_profiles.schema import HeadScale, NeuronScale
from tests.reports.samples import HOSTILE, MODEL, attention, profile, ranking, whole


def texts(svg: str) -> list[str]:
    """The texts of a plot, its title left out."""
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("text")]


def test_a_plot_is_well_formed_whatever_its_title_says():
    svg = to_svg(lambda: path_plot(whole().path), "x", HOSTILE.replace("\x1b", ""))
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root[0].tag == "title"
    assert root[0].text == HOSTILE.replace("\x1b", "")


def test_a_token_is_never_read_as_a_formula_nor_as_markup():
    pattern = attention(("$x^2$", "<b>", "&", "日本", 'fill: #010203; "', "font-family: x; "))
    shown = texts(to_svg(lambda: attention_maps([pattern]), "x", "x"))
    for label in ("$x^2$", "<b>", "&", "日本", "fill:·#01…", "font-fami…"):
        assert shown.count(label) == 2


def test_a_long_prompt_shows_its_last_tokens():
    pattern = attention(tuple(f"t{i}" for i in range(300)))
    shown = texts(to_svg(lambda: attention_maps([pattern]), "x", "x"))
    assert "t299" in shown
    assert "t0" not in shown
    assert "L3H0, last 32 of 300 tokens" in shown


def test_the_grid_shows_every_point_and_frames_the_chosen_one():
    svg = to_svg(lambda: grid_map(whole().grid, GridPoint(2, 1.5)), "x", "x")
    shown = texts(svg)
    assert {"67.8", "77.8", "44.4", "97.8", "68.9", "×1.5", "×2", "0 (unsteered)"} <= set(shown)
    assert shown.count("67.8") == 2  # the unsteered model, in both columns
    assert svg.count(f"stroke: {ORANGE}") == 1
    assert f"stroke: {ORANGE}" not in to_svg(lambda: grid_map(whole().grid, None), "x", "x")


def test_a_grid_of_the_plain_model_alone_is_drawn():
    svg = to_svg(
        lambda: grid_map([MeasuredPoint(GridPoint(0, 1.0), Accuracy({"all": (3, 9)}))], GridPoint(0, 1.0)), "x", "x"
    )
    assert "33.3" in texts(svg)


def test_amplified_and_weakened_heads_differ_in_colour():
    svg = to_svg(lambda: head_scales(profile()), "x", "x")
    assert len(re.findall("fill: #e8710a", svg)) == 1
    assert len(re.findall("fill: #3f7fc9", svg)) == 1
    assert {"1.5", "0.25"} <= set(texts(svg))


def test_heads_under_several_conditions_have_a_map_for_each():
    late = Condition(from_position=3)
    heads = (HeadScale(layer=1, head=2, scale=1.5), HeadScale(layer=1, head=2, scale=0.25, when=late))
    figure = head_scales(profile(heads=heads, neurons=()))
    assert [axes.get_title() for axes in figure.axes] == ["everywhere", "where the position is 3 or later"]
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [[], []]
    assert [len(axes.patches) for axes in figure.axes] == [1, 1]


def test_rounds_of_a_search_are_lines_of_their_own():
    steps = [replace(point, round=place) for place in (1, 2) for point in whole().path]
    errors, increases = path_plot(steps).axes
    assert [len(axes.lines) for axes in (errors, increases)] == [4, 4]  # two lines and two rings


def test_neurons_are_counted_per_layer():
    neurons = tuple(NeuronScale(layer=layer, neuron=n, scale=2.0) for layer in (1, 3) for n in range(layer))
    figure = neurons_per_layer(profile(neurons=neurons))
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0, 1, 0, 3]


def test_histograms_count_every_component_once():
    figure = accuracy_histograms(ranking())
    assert len(figure.axes) == 3
    assert {"1", "10"} <= set(texts(to_svg(lambda: accuracy_histograms(ranking(count=400)), "x", "x")))
    for axes in figure.axes:
        counted = [sum(bar.get_height() for bar in bars) for bars in axes.containers]
        assert counted == [12, 2]  # ranked, and of them scaled


@pytest.mark.parametrize("groups", [(), ("one",), tuple(f"group {i}" for i in range(60))])
def test_any_number_of_sub_tasks_can_be_drawn(groups: tuple[str, ...]):
    made = ranking(groups)
    ET.fromstring(to_svg(lambda: precision_recall(made), "x", "x"))
    if groups:
        ET.fromstring(to_svg(lambda: accuracy_histograms(made), "x", "x"))


def test_tens_of_thousands_of_components_make_a_small_picture():
    draw = np.random.default_rng(0)
    accuracy, metrics = draw.random((20_000, 4)), draw.random((20_000, 3))
    many = ReportedRanking(
        (")", "))", ")))", "))))"),
        tuple(
            RankedComponent(Component("neuron", *divmod(i, 1536)), tuple(a), *m, scale=2.0 if i < 2000 else None)
            for i, (a, m) in enumerate(zip(accuracy.tolist(), metrics.tolist(), strict=True))
        ),
    )
    scatter = to_svg(lambda: precision_recall(many), "x", "x")
    assert scatter.count("<use") < 100
    assert len(scatter) < 1_500_000  # spread evenly, as here, is the worst case
    assert len(to_svg(lambda: accuracy_histograms(many), "x", "x")) < 200_000


def test_a_large_model_fits_the_page():
    large = MODEL.model_copy(update={"layers": 80, "heads": 64})
    heads = tuple(HeadScale(layer=layer, head=layer % 64, scale=1.5) for layer in range(80))
    svg = ET.fromstring(to_svg(lambda: head_scales(profile(model=large, heads=heads, neurons=())), "x", "x"))
    width, height = (float(part) for part in svg.attrib["viewBox"].split()[2:])
    assert width <= 72 * WIDTH
    assert height <= 72 * WIDTH
