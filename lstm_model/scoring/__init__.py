"""What a model is worth: beside champion number zero and rivals, on candles that none had seen.

In come a panel of candles and a network's raw output; out go scores, calibration and the record
that the gate looks at. Rivals are fitted here: HAR, ridge, reversal and, where it is installed,
LightGBM.
"""
