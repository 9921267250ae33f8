"""What can be wrong or odd with a federation's data."""
