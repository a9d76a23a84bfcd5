"""Array mathematics of the techniques: arrays in, arrays out; nothing here knows ONNX.

Whatever may meet a weight of several hundred megabytes works piece by piece, and nothing writes into its input.
"""
