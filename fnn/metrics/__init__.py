"""Metrics: pure accumulators `init`, `update`, `merge`, `compute`, for `train`, `evaluate`, and loops of your own.

>>> import numpy as np
>>> output, labels = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 0, 0])
>>> halves = [accuracy.update(accuracy.init(), output[i], labels[i], None) for i in (slice(2), slice(2, 3))]
>>> round(accuracy.compute(accuracy.merge(*halves)), 3)
0.667

scikit-learn's functions have many more; they take the outputs of `net.apply(params, x)`.
"""

from fnn.metrics.classification import (
    ClassScores,
    accuracy,
    binary_accuracy,
    binary_f1,
    binary_precision,
    binary_recall,
    class_scores,
    confusion_matrix,
    f1,
    ignoring,
    perplexity,
    precision,
    recall,
    roc_auc,
    top_k,
)
from fnn.metrics.core import Mean, Metric, add_to_mean, compute_mean, mean_of, merge_means, no_mean
from fnn.metrics.regression import mean_absolute_error, mean_squared_error, r2, root_mean_squared_error

__all__ = [
    "ClassScores",
    "Mean",
    "Metric",
    "accuracy",
    "add_to_mean",
    "binary_accuracy",
    "binary_f1",
    "binary_precision",
    "binary_recall",
    "class_scores",
    "compute_mean",
    "confusion_matrix",
    "f1",
    "ignoring",
    "mean_absolute_error",
    "mean_of",
    "mean_squared_error",
    "merge_means",
    "no_mean",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "root_mean_squared_error",
    "top_k",
]
