"""`python -m onnxpress`, the same as the command `onnxpress`."""

import sys

from onnxpress.cli import main

if __name__ == "__main__":
    sys.exit(main())
