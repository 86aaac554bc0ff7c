"""ladcast: one analysis of the atmosphere in, a calibrated global ensemble forecast out."""
