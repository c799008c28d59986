"""The anomaly map: from the outputs of the network, and of an encoder, to scores.

Also what is fitted for it. Imports `common`, `images`, `encoders` and `network`.
"""
