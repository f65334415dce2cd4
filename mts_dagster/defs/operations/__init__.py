"""Keeping the lake small and the instance healthy."""
