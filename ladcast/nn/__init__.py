"""Building blocks of the networks: convolutions on the sphere, attention, position encodings, embeddings."""
