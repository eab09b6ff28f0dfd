"""The parts of the page: each from a comparison to what its template shows."""
