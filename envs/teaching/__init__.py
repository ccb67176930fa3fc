"""Taught vector environments: a task teacher behind the resets of SB3's and Gymnasium's, and their check."""
