"""What asks on top of a screen."""
