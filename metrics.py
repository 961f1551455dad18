"""What is counted and timed for Prometheus, from the start of the process on. Knows nothing of where it is shown.

No label is ever an alert's own text: brokers, markets, endings and the codes of checks are few and known, whatever is
sent. https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric

from events import Decided, Event, OrderChanged
from models import ENDINGS, UNSETTLED, Account, Decision, DecisionRecord, Order, OrderStatus

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# In seconds: from an order on loopback to the deadlines of a reply (2.1) and of Binance (10).
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.1, 5.0, 10.0, 15.0)
# There are some thirty codes of checks. Should a check ever make one of an alert's text, it is counted without it.
MOST_SERIES = 500

# When each series was made says nothing: all were made at the start.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types at all


class Metrics:
    """`written`, `answered` and `refused` cost a microsecond or two: orders wait for them."""

    def __init__(self, accounts: Iterable[Account], since: datetime) -> None:
        """`since`: the start of the process; how long older orders took says nothing about it."""
        self.registry = registry = CollectorRegistry()
        self._since = since
        self._accounts = tuple(accounts)
        self._brokers = frozenset(account.broker for account in self._accounts)
        self._resting: set[str] = set()  # outcomes that were timed already
        self._decisions = _Family(
            Counter, "gatehouse_decisions", "Alerts decided on.", ("decision", "check", "broker"), registry
        )
        where = ("broker", "market")
        self._endings = _Family(Counter, "gatehouse_orders", "Orders that ended.", ("ending", *where), registry)
        self._doubts = _Family(Counter, "gatehouse_unknown_outcomes", "Orders with a lost reply.", where, registry)
        self._to_decide = Histogram(
            "gatehouse_decision_seconds", "From an alert's receipt to its decision.", buckets=BUCKETS, registry=registry
        )
        self._to_answer = _Family(
            _histogram, "gatehouse_answer_seconds", "From an order's leaving to its answer.", where, registry
        )
        self._to_outcome = _Family(
            _histogram, "gatehouse_outcome_seconds", "From an alert's receipt to its order's outcome.", where, registry
        )
        self._refused = Counter("gatehouse_unauthorised", "Requests without the secret.", registry=registry)
        ProcessCollector(registry=registry)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """What has not happened yet is a zero, not a gap: https://prometheus.io/docs/practices/instrumentation/"""
        for broker in self._brokers:
            self._decisions.at(Decision.ACCEPTED.value, "", broker)
            self._decisions.at(Decision.DUPLICATE.value, "duplicate", broker)
        for account in self._accounts:
            where = (account.broker, account.market.value)
            for ending in ENDINGS:
                self._endings.at(ending.value, *where)
            for family in (self._doubts, self._to_answer, self._to_outcome):
                family.at(*where)

    # --- what happens ---------------------------------------------------------------------------------------------

    def written(self, events: Sequence[Event]) -> None:
        """What has just gone on the record."""
        for event in events:
            if type(event) is OrderChanged:
                self._changed(event.order)
            elif type(event) is Decided:
                self._decided(event.record)

    def answered(self, account: Account, seconds: float) -> None:
        """So long an order was on its way, until there was an answer or none was waited for any more."""
        self._to_answer.at(account.broker, account.market.value).observe(seconds)

    def refused(self) -> None:
        self._refused.inc()

    def _decided(self, record: DecisionRecord) -> None:
        broker = record.broker if record.broker in self._brokers else "other"
        # Of what could not be understood, `check` is a field's name.
        check = "invalid" if record.decision is Decision.INVALID else record.check
        self._decisions.at(record.decision.value, check, broker).inc()
        self._to_decide.observe(max(0.0, (record.decided_at - record.received_at).total_seconds()))

    def _changed(self, order: Order) -> None:
        where = (order.broker, order.market.value)
        if order.status in ENDINGS:
            self._endings.at(order.status.value, *where).inc()
        elif order.status is OrderStatus.UNKNOWN:
            self._doubts.at(*where).inc()
        if order.status not in UNSETTLED and self._is_an_outcome(order) and order.settled_at is not None:
            self._to_outcome.at(*where).observe(max(0.0, (order.settled_at - order.received_at).total_seconds()))

    def _is_an_outcome(self, order: Order) -> bool:
        """The first one of an order that an alert asked for: what rests has had its own, however late it is filled."""
        if order.is_protection or order.leg == "by_hand" or order.received_at < self._since:
            return False
        if order.client_order_id in self._resting:
            if order.status in ENDINGS:
                self._resting.discard(order.client_order_id)
            return False
        if order.status not in ENDINGS:
            self._resting.add(order.client_order_id)
        return True

    # --- what is shown --------------------------------------------------------------------------------------------

    def text(self, gauges: Sequence[Metric]) -> bytes:
        """Everything, with these beside it. Takes some milliseconds."""
        return generate_latest(_Together([*self.registry.collect(), *gauges]))


class _Family:
    """One metric with labels. To find a series by its labels is the dearer half of counting, so it is found once."""

    def __init__(
        self, kind: Callable[..., Counter | Histogram], name: str, about: str, labels: tuple[str, ...],
        registry: CollectorRegistry,
    ) -> None:  # fmt: skip
        self._metric = kind(name, about, labels, registry=registry)
        self._series: dict[tuple[str, ...], Counter | Histogram] = {}
        self._others = ("other",) * len(labels)

    def at(self, *labels: str) -> Any:
        found = self._series.get(labels)
        if found is None:
            if len(self._series) >= MOST_SERIES:
                labels = self._others
            found = self._series[labels] = self._metric.labels(*labels)
        return found


def _histogram(name: str, about: str, labels: tuple[str, ...], registry: CollectorRegistry) -> Histogram:
    return Histogram(name, about, labels, buckets=BUCKETS, registry=registry)


class _Together(CollectorRegistry):
    """What was looked at before, to be written down."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
