"""Data of every kind as batches: arrays, tables, files, loaders, data sets."""
