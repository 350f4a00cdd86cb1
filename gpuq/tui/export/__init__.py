"""What is shown, as files: a picture, or tables for other programs."""
