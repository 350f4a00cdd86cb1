"""What came of jobs: what they reported, how they ended, what they cost. Decided purely."""
