"""Convert any network into one that computes all members, and report the result."""
