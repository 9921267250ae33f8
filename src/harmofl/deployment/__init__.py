"""Deployment of a federation over several machines: folders, keys, the server and the site client."""
