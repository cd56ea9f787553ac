"""The real bot over the past, in fast-forward, and its backtest to match."""
