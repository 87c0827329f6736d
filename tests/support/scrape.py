"""/metrics as Prometheus reads it."""

from __future__ import annotations

from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Answer, Client, Server

COUNTING: Final = ("counter", "histogram")


class Scrape:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = [sample for family in self.families.values() for sample in family.samples]
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value) for sample in samples
        }
        assert len(self._values) == len(samples), "a sample stands twice"

    def __getitem__(self, name: str) -> float:
        """The only sample of this name, without labels; the name without `ingestd_`."""
        return self._values["ingestd_" + name, ()]

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """All samples of this name, by the values of these labels."""
        found = {}
        for (sample, pairs), value in self._values.items():
            if sample == "ingestd_" + name:
                assert {label for label, _ in pairs} == set(labels)
                found[tuple(dict(pairs)[label] for label in labels)] = value
        return found

    def counts(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All that may only grow."""
        names = {
            sample.name
            for family in self.families.values()
            for sample in family.samples
            if family.type in COUNTING
        }
        return {which: value for which, value in self._values.items() if which[0] in names}


def ask(server: Server, path: str, method: str = "GET") -> Answer:
    """A request to the admin listener, on a connection of its own."""
    host, port = server.admin
    with Client(host, port, key="") as client:
        return client.request(method, path)


def scrape(server: Server) -> Scrape:
    """What /metrics says now; counts of a worker that has not been asked are up to a tick behind."""
    answer = ask(server, "/metrics")
    assert answer.status == 200
    return Scrape(answer.body.decode())
