"""What the manuals say of probabilities, intervals, starts and networks, one file a claim."""
