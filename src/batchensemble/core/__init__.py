"""Foundations without machine learning: arguments, nested values, files, random states."""
