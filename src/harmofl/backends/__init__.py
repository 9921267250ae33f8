"""Backends: execution in one process, in several, or at sites that an engine reaches. Imports nothing by itself."""
