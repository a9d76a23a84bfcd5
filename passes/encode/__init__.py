"""Storage: weights in few bytes, in a file that stock ONNX Runtime decodes by itself while it loads it.

`Encode` (encode.py) looks for constants that may be encoded (candidates.py), takes weights apart for which there are
books (books.py, channels.py, vectors.py, stages.py), surveys the rest, lists the plans that fit each (options.py) with
what they would take in the file (costs.py) and to load (loads.py), picks one for each within what loading may take
(budget.py, choose.py), takes the weights apart (parts.py) and writes what is stored and the calls that decode it
(writer.py, functions.py, huffman.py). All is decoded and compared (checking.py), and loading is timed (measuring.py).
`Decode` (decode.py) is the reverse, and `undecoded_nodes` (folding.py) tells whether ONNX Runtime folded everything.
"""
