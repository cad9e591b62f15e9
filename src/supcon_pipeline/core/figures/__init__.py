"""Arrays to figures: matplotlib for still ones, plotly for those that answer to the pointer."""
