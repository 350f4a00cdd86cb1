"""The terminal below the screen: taken over, written to, and given back as it was."""
