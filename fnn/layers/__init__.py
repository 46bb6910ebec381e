"""The layers, one file a family. Each shows formula, forward, vjp and constructor in this order."""
