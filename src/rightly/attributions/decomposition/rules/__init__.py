"""The rules, by kind. Importing them enters them into the table."""

import rightly.attributions.decomposition.rules.affine
import rightly.attributions.decomposition.rules.attention
import rightly.attributions.decomposition.rules.norms
import rightly.attributions.decomposition.rules.pooling
import rightly.attributions.decomposition.rules.products
import rightly.attributions.decomposition.rules.recurrent
import rightly.attributions.decomposition.rules.shapes
import rightly.attributions.decomposition.rules.tokens
import rightly.attributions.decomposition.rules.unary  # noqa: F401
