"""Macro series of FRED."""
