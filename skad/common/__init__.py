"""Helpers that know nothing about images: checks, files, locks, threads, warnings.

Imports no other package of skad.
"""
