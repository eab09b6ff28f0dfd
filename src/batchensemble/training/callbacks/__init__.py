"""Callbacks: what is done during a training besides its steps."""
