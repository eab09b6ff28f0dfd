"""What is done while a training runs; the loop needs none of it."""
