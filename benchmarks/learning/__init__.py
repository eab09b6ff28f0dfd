"""Tasks that are learnt one after the other."""
