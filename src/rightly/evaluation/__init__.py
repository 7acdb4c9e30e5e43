"""Did it get better: metrics, importances, intervals and paired tests, for models trained anywhere."""

from rightly.evaluation import axioms
from rightly.evaluation.ablation import ABLATION_METRICS, AblationCurve, ablation
from rightly.evaluation.enrichment import Enrichment, GeneOverlap, gene_overlap, over_representation, set_enrichment
from rightly.evaluation.evaluate import Cell, EvaluationTable, evaluate
from rightly.evaluation.exactness import Convergence, convergence, local_accuracy, runtime
from rightly.evaluation.explainer import Explainer
from rightly.evaluation.faithfulness import Gaussian, Removal, Sensitivity, attribution_sensitivity, infidelity
from rightly.evaluation.importance import Importance, global_importance, lorenz, share_inside
from rightly.evaluation.localisation import energy_pointing_game, iou, pointing_game, rank_accuracy, top_k_intersection
from rightly.evaluation.measures import MEASURES, Measure, Subject
from rightly.evaluation.metrics import METRICS, Metric, metrics_for, predictions, score
from rightly.evaluation.robustness import Curve, blur, occlusion, predicting, robustness_curve
from rightly.evaluation.sanity import (
    Control,
    Randomised,
    label_randomisation,
    model_randomisation,
    random_annotation_control,
)
from rightly.evaluation.similarity import cosine, rank_correlation, structural_similarity, top_k_overlap
from rightly.evaluation.stability import Agreement, agreement
from rightly.evaluation.statistics import Comparison, Interval, adjust, binomial, bootstrap, compare, interval

__all__ = [
    "ABLATION_METRICS",
    "MEASURES",
    "METRICS",
    "AblationCurve",
    "Agreement",
    "Cell",
    "Comparison",
    "Control",
    "Convergence",
    "Curve",
    "Enrichment",
    "EvaluationTable",
    "Explainer",
    "Gaussian",
    "GeneOverlap",
    "Importance",
    "Interval",
    "Measure",
    "Metric",
    "Randomised",
    "Removal",
    "Sensitivity",
    "Subject",
    "ablation",
    "adjust",
    "agreement",
    "attribution_sensitivity",
    "axioms",
    "binomial",
    "blur",
    "bootstrap",
    "compare",
    "convergence",
    "cosine",
    "energy_pointing_game",
    "evaluate",
    "gene_overlap",
    "global_importance",
    "infidelity",
    "interval",
    "iou",
    "label_randomisation",
    "local_accuracy",
    "lorenz",
    "metrics_for",
    "model_randomisation",
    "occlusion",
    "over_representation",
    "pointing_game",
    "predicting",
    "predictions",
    "random_annotation_control",
    "rank_accuracy",
    "rank_correlation",
    "robustness_curve",
    "runtime",
    "score",
    "set_enrichment",
    "share_inside",
    "structural_similarity",
    "top_k_intersection",
    "top_k_overlap",
]
