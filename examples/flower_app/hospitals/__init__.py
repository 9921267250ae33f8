"""HarmoFL's method code inside an own Flower app."""
