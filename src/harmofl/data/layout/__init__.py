"""Listing of a federation's files in every supported layout, without decoding anything but masks where necessary."""
