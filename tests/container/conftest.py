"""The images under test, built once, and the report of the measurements."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.container import images
from tests.container.images import Image

BAKED, NONE = "localhost/steering-server:baked", "localhost/steering-server:none"
RESULTS = Path(__file__).parents[2] / "benchmarks/results/container.json"


class Report:
    """Measurements in the order in which they were made."""

    def __init__(self) -> None:
        self.layers: dict[str, float] = {}
        self.figures: dict[str, tuple[float, str, str]] = {}

    def add(self, what: str, value: float, unit: str, target: str = "") -> None:
        """Add one figure and its target."""
        self.figures[what] = (round(value, 1), unit, target)

    def finish(self) -> None:
        """Write and print it."""
        figures = {f"{what}, {unit}": value for what, (value, unit, _) in self.figures.items()}
        RESULTS.write_text(json.dumps({"figures": figures, "layers, MB": self.layers}, indent=2) + "\n")
        console = Console()
        table = Table("", "measured", "asked", title="the container")
        for what, (value, unit, target) in self.figures.items():
            table.add_row(what, f"{value:g} {unit}", target)
        console.print(table)
        layers = Table("layer", "MB", title="the image, by layer")
        for made_by, size in self.layers.items():
            layers.add_row(made_by, f"{size:g}")
        console.print(layers)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Iterator[Report]:
    report = Report()
    yield report
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print()
        report.finish()


@pytest.fixture(scope="session")
def none(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image without a model."""
    for tool in ("buildah", "debootstrap"):
        assert shutil.which(tool), f"{tool} is missing; make test-container installs it"
    images.make_base()
    yield images.build(NONE, tmp_path_factory.mktemp("build"), WEIGHTS="none", TORCH_INDEX="")
    images.remove_all()  # but the base: their layers take 10 GB, each a copy of the one before


@pytest.fixture(scope="session")
def baked(none: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image with the default model inside."""
    return images.build(BAKED, tmp_path_factory.mktemp("build"), WEIGHTS="baked", TORCH_INDEX="")
