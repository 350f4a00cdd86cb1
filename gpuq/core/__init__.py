"""Values and decisions. No clock, no file, no socket: what time it is comes in as an argument."""
