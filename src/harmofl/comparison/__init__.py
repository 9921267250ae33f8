"""Comparison of methods: runs that differ in the compared setting only, and the tables and charts of their results."""
