"""Comparisons with other libraries, where they are installed."""
