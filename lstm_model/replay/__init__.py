"""A market to practise on, synthetic or recorded, served in Binance's dialect on 127.0.0.1."""
