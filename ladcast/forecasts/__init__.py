"""A forecast on disk: its layout, how it is written, opened, decoded and exported."""
