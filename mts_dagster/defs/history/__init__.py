"""Market history: rankings, price points, klines."""
