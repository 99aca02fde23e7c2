"""How state machines are run."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


@pytest.fixture(scope="session")
def run_machine() -> Callable[..., None]:
    """Run a state machine, with so many examples of at most so many steps."""

    def run(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int) -> None:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            ),
        )

    return run
