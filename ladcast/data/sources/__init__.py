"""Where weather states come from: one small file per source, each with a lexicon of its own."""
