"""Recorded frames on disk, and students cloned from them."""
