"""Storage: weights in few bytes, in a file that stock ONNX Runtime decodes by itself while it loads it.

`Encode` (encode.py) surveys the weights, lists the plans that fit each (options.py) with what they would take
(costs.py), lets `choose` pick one for each, takes the weights apart (parts.py) and writes what is stored and the calls
that decode it (writer.py, functions.py, huffman.py). `Decode` (decode.py) is the reverse, and `undecoded_nodes`
(folding.py) tells whether ONNX Runtime folded everything.
"""
