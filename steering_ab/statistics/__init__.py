"""Statistics of comparisons.

``proportions``, ``paired``, ``scores`` and ``independent`` are for samples of a fixed size; ``multiplicity`` corrects
for several tests, and ``power`` says what a design can show. ``sequential`` and ``sample_ratio`` are for experiments
that are looked at while they run. scipy and statsmodels are imported when they are used.
"""
