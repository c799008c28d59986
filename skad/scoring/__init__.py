"""The anomaly map: from the network's outputs to scores, and what is fitted for it.

Imports `common`, `images` and `network`.
"""
