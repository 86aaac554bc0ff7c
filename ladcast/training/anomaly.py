"""What to do about a loss that is not a number, and a gradient that is far too large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AnomalyPolicy:
    """Sets what counts as an anomaly of a training step, and what follows.

    A loss or gradient norm that is not finite always counts. "stop" ends the run, "skip" leaves the weights as they
    are for that step, "roll_back" returns to the last checkpoint and goes on with the batches after the bad one; before
    the first checkpoint it skips.
    """

    action: Literal["stop", "skip", "roll_back"] = "stop"
    spike: float | None = None
    """A gradient norm of this many times its running mean counts too."""
    limit: int = 20
    """The run stops after this many anomalies, whatever the action."""

    def __post_init__(self) -> None:
        if self.limit < 0 or (self.spike is not None and self.spike <= 1):
            raise ValueError(f"Expected limit >= 0 and spike > 1, got {self.limit} and {self.spike}.")


class GradientWatch:
    """Knows the usual size of the gradient, and how often it was unusual."""

    MEMORY_STEPS = 100

    def __init__(self, policy: AnomalyPolicy) -> None:
        self.policy = policy
        self.mean = 0.0
        self.steps = 0
        self.anomalies = 0

    def find(self, loss: float, norm: float) -> str | None:
        """Returns what is wrong with a step, or None and learns its gradient norm.

        All ranks must give the same numbers.
        """
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"The {name} is {value}"
        spike = self.policy.spike
        if spike is not None and self.steps >= self.MEMORY_STEPS and norm > spike * self.mean:
            return f"The gradient norm is {norm:.3g}, more than {spike:g} times its mean {self.mean:.3g}"
        self.steps += 1
        self.mean += (norm - self.mean) / min(self.steps, self.MEMORY_STEPS)
        return None

    def count(self, problem: str, step: int) -> None:
        """Counts an anomaly; raises FloatingPointError where the policy is to stop."""
        self.anomalies += 1
        if self.policy.action == "stop" or self.anomalies > self.policy.limit:
            raise FloatingPointError(
                f"{problem} at step {step}. The last checkpoint is whole: resume from it with a lower 'learning_rate' "
                f"or 'max_gradient_norm', or with another 'anomaly.action' than '{self.policy.action}' "
                f"({self.anomalies} anomalies so far, limit {self.policy.limit})."
            )

    def state(self) -> dict[str, float]:
        """Returns what a checkpoint keeps."""
        return {"mean": self.mean, "steps": self.steps, "anomalies": self.anomalies}

    def restore(self, state: dict[str, float]) -> None:
        """Puts back what `state` returned."""
        self.mean, self.steps, self.anomalies = state["mean"], int(state["steps"]), int(state["anomalies"])
