"""What has ended: its files, how long they are kept, how it is forgotten, and a copy of the rest."""
