"""What draws. Each widget is shown its data by its screen and asks nobody for it."""
