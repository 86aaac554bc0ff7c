"""The two networks of a forecast, the autoencoder and the latent transformer, and their released weights."""
