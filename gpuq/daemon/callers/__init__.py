"""Those who ask: who they are, what each may and is told, and how much of the daemon one may take."""
