"""Figures from arrays: static ones by matplotlib, interactive ones by plotly."""
