"""What clients may ask: each request is checked, what it wishes is stored, and it is answered."""
