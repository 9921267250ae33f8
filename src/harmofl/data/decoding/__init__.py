"""From image files to arrays, in memory or memory-mapped."""
