"""The metrics of a server, as Prometheus would read them."""

import time
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """All samples at one moment."""

    def __init__(self, http: httpx.Client) -> None:
        answer = http.get("/metrics").raise_for_status()
        self.samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with at least these labels."""
        return sum(one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items())

    def values_of(self, label: str) -> set[str]:
        """All values of a label."""
        return {one.labels[label] for one in self.samples if label in one.labels}


class Growth:
    """Growth of metrics."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._before = Scrape(http)

    def of(self, name: str, **labels: str) -> float:
        """Return the growth of the metric since this object was made."""
        return Scrape(self._http).value(name, **labels) - self._before.value(name, **labels)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.02)
