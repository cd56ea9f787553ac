"""How a network is fitted: all that TensorFlow does, in a process of its own.

The process may run under another interpreter than the bot's, which then needs NumPy, pydantic and
TensorFlow and nothing else: it is lent this package by `start.py`. In come job folders, out go
weights; the same job gives the same weights.
"""
