"""A federation between buildings: its folders and keys, the server's loop, and what runs at a site."""
