"""Optimizers, schedules, parameter groups and averages of weights."""
