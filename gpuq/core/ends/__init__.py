"""How attempts end, what that means, and what follows."""
