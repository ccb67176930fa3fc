"""Replay of levels: scores that say which levels a student still has something to learn from."""
