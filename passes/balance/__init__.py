"""Ranges made even before quantization, exactly: magnitude moves from where codes are scarce to where they are not."""
