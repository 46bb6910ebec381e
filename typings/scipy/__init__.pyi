"""The part of SciPy that the examples use."""
