"""Who serves: the learner's steps in candle time, its gate, drift, promotion and roll-back.

In come candles whose outcome is known; out go steps, each with the model that serves and what was
decided. It never looks at the wall clock to decide, so a bot and a backtest learn alike.
"""
