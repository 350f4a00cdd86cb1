"""All that talks to systemd: the daemon works without it too."""
