"""Colours of the charts, in the order in which they are assigned to methods and sites."""

SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#070809")  # Okabe-Ito
