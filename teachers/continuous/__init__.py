"""Task teachers for boxes of task parameters, one file each, and what they share."""
