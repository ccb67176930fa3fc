"""The batched worlds, one file each, and what several of them are built of."""
