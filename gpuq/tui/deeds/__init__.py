"""What keys do: each deed is a command line and the request that does the same."""
