"""Rules in words: what should matter, how, and when; compiled into terms, and held against models."""

from rightly.core.errors import RuleError
from rightly.rules.grammar import Rule
from rightly.rules.names import Concept, Condition, Feature
from rightly.rules.rules import Holding, Rules, parse

__all__ = ["Concept", "Condition", "Feature", "Holding", "Rule", "RuleError", "Rules", "parse"]
