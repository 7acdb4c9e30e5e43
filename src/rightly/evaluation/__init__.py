"""Did it get better: metrics, importances, intervals and paired tests, for models trained anywhere."""

from rightly.evaluation import axioms
from rightly.evaluation.ablation import ABLATION_METRICS, AblationCurve, ablation
from rightly.evaluation.attacks import (
    Transfer,
    answered_right,
    attack_curve,
    attacked,
    gradient_norms,
    targeted_grid,
    transfer_matrix,
)
from rightly.evaluation.concepts import ConceptTest, concept_test
from rightly.evaluation.enrichment import Enrichment, GeneOverlap, gene_overlap, over_representation, set_enrichment
from rightly.evaluation.evaluate import Cell, EvaluationTable, evaluate
from rightly.evaluation.exactness import Convergence, convergence, exact_shapley, local_accuracy, runtime
from rightly.evaluation.explainer import Explainer
from rightly.evaluation.faithfulness import Gaussian, Removal, Sensitivity, attribution_sensitivity, infidelity
from rightly.evaluation.groups import GroupAccuracy, group_accuracy, worst_group_error
from rightly.evaluation.importance import Importance, global_importance, lorenz, share_inside
from rightly.evaluation.localisation import energy_pointing_game, iou, pointing_game, rank_accuracy, top_k_intersection
from rightly.evaluation.masking import Masking, gradient_masking
from rightly.evaluation.measures import MEASURES, Measure
from rightly.evaluation.metrics import METRICS, Metric, metrics_for, predictions, score
from rightly.evaluation.robustness import Curve, blur, occlusion, predicting, robustness_curve
from rightly.evaluation.sanity import (
    Control,
    Randomised,
    label_randomisation,
    model_randomisation,
    others_regions,
    placed_anywhere,
    random_annotation_control,
    randomised_copy,
    without_biases,
)
from rightly.evaluation.similarity import cosine, rank_correlation, structural_similarity, top_k_overlap
from rightly.evaluation.stability import Agreement, agreement
from rightly.evaluation.statistics import (
    Comparison,
    Interval,
    adjust,
    among,
    binomial,
    bootstrap,
    compare,
    interval,
    mean_of,
    proportion,
)
from rightly.evaluation.subject import Subject

__all__ = [
    "ABLATION_METRICS",
    "MEASURES",
    "METRICS",
    "AblationCurve",
    "Agreement",
    "Cell",
    "Comparison",
    "ConceptTest",
    "Control",
    "Convergence",
    "Curve",
    "Enrichment",
    "EvaluationTable",
    "Explainer",
    "Gaussian",
    "GeneOverlap",
    "GroupAccuracy",
    "Importance",
    "Interval",
    "Masking",
    "Measure",
    "Metric",
    "Randomised",
    "Removal",
    "Sensitivity",
    "Subject",
    "Transfer",
    "ablation",
    "adjust",
    "agreement",
    "among",
    "answered_right",
    "attack_curve",
    "attacked",
    "attribution_sensitivity",
    "axioms",
    "binomial",
    "blur",
    "bootstrap",
    "compare",
    "concept_test",
    "convergence",
    "cosine",
    "energy_pointing_game",
    "evaluate",
    "exact_shapley",
    "gene_overlap",
    "global_importance",
    "gradient_masking",
    "gradient_norms",
    "group_accuracy",
    "infidelity",
    "interval",
    "iou",
    "label_randomisation",
    "local_accuracy",
    "lorenz",
    "mean_of",
    "metrics_for",
    "model_randomisation",
    "occlusion",
    "others_regions",
    "over_representation",
    "placed_anywhere",
    "pointing_game",
    "predicting",
    "predictions",
    "proportion",
    "random_annotation_control",
    "randomised_copy",
    "rank_accuracy",
    "rank_correlation",
    "robustness_curve",
    "runtime",
    "score",
    "set_enrichment",
    "share_inside",
    "structural_similarity",
    "targeted_grid",
    "top_k_intersection",
    "top_k_overlap",
    "transfer_matrix",
    "without_biases",
    "worst_group_error",
]
