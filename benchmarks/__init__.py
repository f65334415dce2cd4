"""Measurements: run all with ``make bench``; what they mean and what was measured stands in ``README.md`` beside this.

A benchmark prints what it saw and keeps nothing. Comparisons are ratios within one run, because machines differ and are
rarely quiet. Other libraries that we compare with live in an environment of their own, ``.venv-peers``.
"""
