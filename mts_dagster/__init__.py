"""MTS, Market Time Series: orchestration and the domain that it orchestrates.

Imports run one way inside this package: ``defs`` uses ``strategies``, ``lake`` and ``sources``, and these use
``schemas``, ``settings`` and ``errors``. Everything that computes without Dagster imports no Dagster.
"""
