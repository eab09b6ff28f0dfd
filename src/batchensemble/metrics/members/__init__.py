"""What the members are to each other: diversity, the gain of having them, their weights."""
