"""Methods side by side: many runs that differ in the one thing that is compared, and what they say together."""
