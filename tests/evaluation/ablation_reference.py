"""The 18 ablation metrics as plain loops, one example, one feature and one background row at a time."""

from __future__ import annotations

import numpy as np


def slow_area(metric, predict, inputs, attributions, background, labels, *, drawn, order_of, r2, target=None):
    """The number a paper would tabulate.

    Args:
        predict: a row (F,) -> a number; with ``target`` a number a class.
        drawn: numbers of the background rows that are put in.
        order_of: (F,) attributions -> the features from the most important one on.
        r2: True for R2 of the absolute metrics, False for the area under the ROC curve.
        target: the class that is followed for each example; the absolute metrics are then accuracy.
    """
    action, direction, how = metric.split("_")
    features = inputs.shape[1]
    counts, scores = [], []
    for step in range(11):
        count = round(features * (10 ** (step / 10) - 1) / 9)
        if count not in counts:
            counts.append(count)
    for count in counts:
        outputs = []
        for x, phi in zip(inputs, attributions, strict=True):
            ranked = {"positive": phi, "negative": -phi, "absolute": abs(phi)}[direction]
            n = min(count, sum(1 for value in ranked if value >= 0))
            first = list(order_of(ranked)[:n])
            gone = [j for j in range(features) if (j in first) == (action == "remove")]
            outputs.append(np.mean([predict(row) for row in versions(how, x, gone, background, drawn)], axis=0))
        if target is not None and direction != "absolute":
            outputs = [output[chosen] for output, chosen in zip(outputs, target, strict=True)]
        if direction == "absolute":
            if target is not None:
                value = np.mean([np.argmax(output) == label for output, label in zip(outputs, labels, strict=True)])
            else:
                value = slow_r2(labels, outputs) if r2 else slow_auc(labels, outputs)
            scores.append(value if action == "keep" else 1 - value)
        else:
            turned = metric.startswith(("keep_negative", "remove_positive"))
            scores.append(-np.mean(outputs) if turned else np.mean(outputs))
    area = 0.0
    for left, right, low, high in zip(counts, counts[1:], scores, scores[1:], strict=False):
        area += (right - left) * (low + high) / 2
    return area / counts[-1]


def versions(how, x, gone, background, drawn):
    """The rows that stand for an example without the features ``gone``."""
    kept = [j for j in range(len(x)) if j not in gone]
    if how == "resample":
        rows = [x.copy() for _ in drawn]
        for row, number in zip(rows, drawn, strict=True):
            for j in gone:
                row[j] = background[number, j]
        return rows
    row, mean = x.copy(), background.mean(0)
    for j in gone:
        row[j] = mean[j]
    if how == "impute" and kept:
        covariance = np.cov(background.T) + 1e-6 * np.eye(len(x))
        inverse = np.linalg.inv(covariance[np.ix_(kept, kept)])
        for j in gone:
            row[j] += covariance[j, kept] @ inverse @ (x[kept] - mean[kept])
    return [row]


def slow_r2(labels, outputs):
    residual = sum((label - output) ** 2 for label, output in zip(labels, outputs, strict=True))
    return 1 - residual / sum((label - np.mean(labels)) ** 2 for label in labels)


def slow_auc(labels, outputs):
    """The share of pairs, one of either class, that are in the right order; equal ones count half."""
    high = [output for label, output in zip(labels, outputs, strict=True) if label == 1]
    low = [output for label, output in zip(labels, outputs, strict=True) if label == 0]
    return np.mean([(h > w) + 0.5 * (h == w) for h in high for w in low])
