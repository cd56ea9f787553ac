"""How networks come into being: TensorFlow's side, in a child process.

In come candles until a boundary; out go published versions. TensorFlow is imported in the child
alone, never in the bot, and the same job gives the same weights.
"""
