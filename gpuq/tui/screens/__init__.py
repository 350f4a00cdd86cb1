"""Widgets put together, and dialogs on top of them."""
