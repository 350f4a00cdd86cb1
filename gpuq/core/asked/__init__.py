"""What people ask for, read and checked: from words and lines to a Spec."""
