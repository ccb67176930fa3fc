"""Experts, or privileged teachers: policies that see what the student cannot."""
