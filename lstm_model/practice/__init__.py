"""A market to practise on, in Binance's dialect, and Telegram: servers on 127.0.0.1.

In come invented or recorded candles and trades; out go REST answers and websocket frames that
unmodified ccxt takes. It never reaches the internet and knows nothing of models.
"""
