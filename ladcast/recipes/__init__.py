"""What a training run of each model consists of."""
