"""Members of an ensemble: diversity, gain, number of effective members, weights."""
