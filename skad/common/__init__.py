"""Small tools that know nothing of images: checks, files, locks, threads, warnings.

Imports nothing of skad's.
"""
