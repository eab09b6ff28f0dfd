"""What the project claims, measured: a room for each question, over one base for the pages."""
