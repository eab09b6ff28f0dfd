"""The commands that work with one model or its folder, a file for one or two of them."""
