"""One training loop for both models, its optimizer, weight averaging and losses."""
