"""Each fault as a short story: load, what breaks, and what is promised."""

from tests.crash.faults import beat, broker, deploy, messages, network, worker
from tests.crash.scenario import Fault

FAULTS: list[Fault] = [
    *worker.FAULTS, *broker.FAULTS, *network.FAULTS, *messages.FAULTS, *beat.FAULTS, *deploy.FAULTS,
]  # fmt: skip
