"""What docs/ship.md says of files: which networks become one, how large and how quick it is."""
