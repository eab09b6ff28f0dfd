"""How the columns of a table become the inputs of a network, and the record of it."""
