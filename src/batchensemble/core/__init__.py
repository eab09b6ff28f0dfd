"""What all else stands on: arguments, nested values, files, random states."""
