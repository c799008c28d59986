"""The command line: one module a command.

Imports every room but `legacy`; nobody imports it.
"""
