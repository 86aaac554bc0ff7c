"""From one analysis to an ensemble on disk: codec, forecaster, rollout, members, writer."""
