"""The command line: its options, and one module per command.

Imports every package but `legacy`. No other package imports it.
"""
