"""From the network's features to the anomaly map, and what that needs to be fitted.

Imports `common`, `images` and `network`.
"""
