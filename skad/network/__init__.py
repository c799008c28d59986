"""The autoencoder and its training: augmentation, synthetic anomalies, optimizer.

Also holds the network of the old script. Imports `common` and `images`.
"""
