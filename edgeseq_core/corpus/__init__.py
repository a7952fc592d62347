"""Real sequence-to-sequence pairs, read at run time from installed data packages."""
