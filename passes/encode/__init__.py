"""Storage: weights in few bytes, in a file that stock ONNX Runtime decodes by itself while it loads it.

`Encode` (encode.py) surveys the weights, lets `choose` pick a plan for each, takes them apart (parts.py) and writes
what is stored and the calls that decode it (writer.py, functions.py). `Decode` (decode.py) is the reverse, and
`undecoded_nodes` (folding.py) tells whether ONNX Runtime folded everything.
"""
