"""Backtests over the lake: what is asked for, what is read, what is stored, and how it is found and done again.

What belongs here: everything between the lake and the engine of ``mts_dagster.backtest``, without Dagster and without a
clock. The engine knows frames and no lake; assets and commands know neither SQL nor arrays.

- ``subject``: who decides: a strategy with its config, or the portfolio of all.
- ``inputs``: bars, funding and decisions, read at one snapshot of the lake.
- ``runs``: a request, its backtest, and the name that it is stored under.
- ``folds``: years of a strategy, and their joined curve.
- ``tuning``: parameter search and walk-forward of a strategy.
- ``store``: result tables written.
- ``stored``: stored runs found and listed.
- ``forget``: stored runs deleted.
- ``pins``: snapshots that stored results refer to.
- ``sheets``: tear sheets and pictures.
- ``reproduce``: a stored run once more, compared.

Modules that run the engine load its compiler; import them where they are used.
"""
