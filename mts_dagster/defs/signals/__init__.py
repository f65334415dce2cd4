"""Signals: one asset a strategy, their union, and the JSON files made of it."""
