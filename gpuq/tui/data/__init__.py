"""What is shown: plain values, no terminal."""
