"""Where clean pictures come from, and how they become tiles."""
