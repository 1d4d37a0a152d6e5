"""Measuring how good results are: data sets, metrics, averages. Used by ``qrun eval`` alone."""
