"""Pure market analytics: no clock, no socket, no file.

What belongs here: functions over prices, sizes, rates and times that are used live, on the newest event, and in
batch, on stored rows. Floats and NumPy arrays go through the same functions. Units are in the names: ``_bps`` is
basis points, ``_pct`` percent, ``_rate`` a fraction per interval, ``_usd`` quote currency (USDT counts as USD).
"""
