"""The assets, one module per family, each with its checks beside it."""
