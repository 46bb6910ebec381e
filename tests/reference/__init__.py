"""Comparisons with other libraries, skipped where these are not installed."""
