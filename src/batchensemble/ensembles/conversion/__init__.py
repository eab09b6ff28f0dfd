"""From any network to one that computes all members, and what became of it."""
