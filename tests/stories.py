"""How many random stories the state machines play, and how long they are."""

from __future__ import annotations

from harness import examples
from hypothesis import HealthCheck, Phase, settings

MANY = 50


def stories(usually: int, *, steps: int) -> settings:
    """The same ones every time, except when many are asked for (GATEHOUSE_EXAMPLES)."""
    count = examples(usually)
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        derandomize=count < MANY,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
