"""A data loader of the user's own: what it draws from, so that a training can be resumed."""
