"""Checks: gaps, staleness, look-ahead."""
