"""Samples and tallies as text, in the format that Prometheus reads. The one door of prometheus_client,
which is imported when somebody asks: that takes as long as a good many turns."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

from gpuq.core.results.tallying import BUCKETS, Key, label_of, sum_of
from gpuq.daemon.metrics.families import FAMILIES, Family, Kind, Sample

if TYPE_CHECKING:
    from prometheus_client import Metric

Tallies = Mapping[Key, float]


def exposition(samples: Iterable[Sample], tallies: Tallies) -> str:
    """All families with what there is of them. It blocks; any thread may call it."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(list(samples), tallies))
    return generate_latest(registry).decode()


class _Collector:
    """What the library asks for the families; see prometheus_client.registry."""

    def __init__(self, samples: Sequence[Sample], tallies: Tallies) -> None:
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            self._samples[sample.family].append(sample)
        self._tallies = tallies

    def describe(self) -> Iterator["Metric"]:
        """Nothing beforehand: nobody else is in this registry."""
        return iter(())

    def collect(self) -> Iterator["Metric"]:
        for family in FAMILIES:
            if family.kind is Kind.GAUGE:
                yield _gauge(family, self._samples[family.name])
            elif family.kind is Kind.COUNTER:
                yield _counter(family, self._tallies)
            else:
                yield _histogram(family, self._tallies)


def _gauge(family: Family, samples: Sequence[Sample]) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for sample in samples:
        metric.add_metric(sample.labels, sample.value)
    return metric


def _counter(family: Family, tallies: Tallies) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    metric = CounterMetricFamily(
        family.name.removesuffix("_total"), family.help, labels=family.labels
    )
    counted = {label: value for (name, label), value in tallies.items() if name == family.tally}
    if not family.labels:
        metric.add_metric((), counted.get("", 0.0))
        return metric
    for label in sorted({*family.always, *counted}):
        metric.add_metric((label,), counted.get(label, 0.0))
    return metric


def _histogram(family: Family, tallies: Tallies) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily

    assert family.tally is not None
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    total = tallies.get((sum_of(family.tally), ""), 0.0)
    metric.add_metric((), _buckets(family.tally, tallies), total)
    return metric


def _buckets(name: str, tallies: Tallies) -> list[tuple[str, float]]:
    """Each with all that is no longer than its bound, as Prometheus wants them; bounds that an earlier
    version counted by are taken into the next greater one."""
    counted = [(float(label), value) for (n, label), value in tallies.items() if n == name]
    bounds = [*BUCKETS[name], inf]
    return [
        ("+Inf" if bound == inf else label_of(bound), sum(v for b, v in counted if b <= bound))
        for bound in bounds
    ]
