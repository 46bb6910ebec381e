"""Neural networks as pure functions over NumPy."""
