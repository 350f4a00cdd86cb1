"""What has ended, page by page, and what it came to."""
