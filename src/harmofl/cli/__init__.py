"""The command `harmofl`."""
