"""Probes: change the future, measure the past. A delta that float64 confirms is a counterexample anyone can replay."""
