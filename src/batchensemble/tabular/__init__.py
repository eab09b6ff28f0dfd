"""Estimators for tables on scikit-learn's terms."""
