"""What all twins of layers share: rows, inputs that are written into, autocast."""
