"""The screen of what has ended, in its parts: what is asked, totals, filter, marks and order."""
