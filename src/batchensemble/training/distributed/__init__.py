"""One training on several processes: its examples, its weights or its members."""
