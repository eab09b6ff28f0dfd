"""Methods on one data set: trained, scored, compared."""
