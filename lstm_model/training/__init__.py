"""How networks come into being: candles until a boundary come in, published versions go out.

TensorFlow is at work in the room `fitting`, in a child process of whichever interpreter has it;
here is who finds that interpreter, starts, watches and ends the process, and judges what it made.
"""
