"""The inspection service: models behind HTTP, their verdicts as answers and events.

Imports every room below it; torch only for models that need it.
"""
