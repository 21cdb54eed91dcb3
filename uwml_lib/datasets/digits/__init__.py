"""Data sets of coloured handwritten digits, made on the spot."""
