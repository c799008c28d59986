"""The verdict about an image: its regions, its p-value, its row in a table.

Imports `common`, `images`, `threshold` and `overlays`; never torch.
"""
