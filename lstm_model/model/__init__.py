"""From candles to a forecast, and what the forecast is worth.

In come `Candles` and stored weights; out go features, quantiles, calibrated forecasts, scores and
the gate's verdicts. It never looks past a candle's close, and knows neither clock, disk nor
TensorFlow.
"""
