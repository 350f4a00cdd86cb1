"""The form of a job: from fields to the words of a command line, and back."""
