"""The network and its training: model, augmentation, synthetic anomalies, optimizer.

Imports `common` and `images`.
"""
