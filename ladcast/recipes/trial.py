"""What `ladcast train` may do instead of training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """Tries a training run; nothing that it makes is kept.

    Args:
        dry_run: print shapes, memory and arithmetic, and take one step.
        overfit_one_batch: train on the first batch alone; its loss must fall.
        profile: take a few steps and write a trace for Perfetto or chrome://tracing.
    """

    dry_run: bool = False
    overfit_one_batch: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        if self.dry_run + self.overfit_one_batch + self.profile > 1:
            raise ValueError("Choose one of --dry-run, --overfit-one-batch and --profile.")

    @property
    def asked(self) -> bool:
        """Says whether there is anything to try."""
        return self.dry_run or self.overfit_one_batch or self.profile


NO_TRIAL = Trial()
