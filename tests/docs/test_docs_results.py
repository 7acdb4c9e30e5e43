"""docs/results.md is what the committed records say, and the generator says what a record holds."""

import json
from pathlib import Path

from rightly.report import write_record
from rightly.workflows.results import RECORDS, results_page

ROOT = Path(__file__).parents[2]


def record(**changes):
    return {
        "schema": 1,
        "command": "reproduce",
        "source": "A paper (2021, figure 5)",
        "created": "2026-11-22T08:00:00+00:00",
        "rerun": "rightly reproduce one-thing --seed 0",
        "data": {"name": "data", "kind": "table"},
        "runs": {"plain": {"seeds": [0], "weight": None, "metrics": {"test": {}}, "explanations": {}, "seconds": 90.0}},
        "comparison": {},
        "notes": ["Reduced: 3 seeds.", "Adam, not SGD."],
        "reduction": "Reduced: 3 seeds.",
        "claims": [
            {"claim": "better", "paper": "+2", "ours": "+1 (0 to 2)", "holds": True, "verdict": "holds"},
            {"claim": "a | b", "paper": "-", "ours": "0", "holds": None, "verdict": "not shown"},
        ],
        **changes,
    }


def test_the_page_is_made_from_the_committed_records():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results_page(), "run: python -m rightly.workflows.results > docs/results.md"
    assert all(f"## {folder.name}\n" in page for folder in RECORDS.iterdir())


def test_what_the_page_says_of_a_record(tmp_path):
    write_record(tmp_path / "one-thing", record())
    page = results_page(tmp_path)
    # of a record from before claims said whose they are, what stands beside them tells it
    assert "| [one-thing](#one-thing) | A paper (2021, figure 5) | 1 | 0 | 0 | 0 of 1 |" in page
    assert "| better | +2 | +1 (0 to 2) | holds |" in page
    assert "| a \\| b | - | 0 | not shown |" in page
    assert "`rightly reproduce one-thing --seed 0`, 2026-11-22, 1 min 30 s of training. Reduced: 3 seeds." in page
    assert "- Adam, not SGD." in page
    assert page.count("Reduced: 3 seeds.") == 1


def test_the_papers_claims_and_ours_are_counted_apart(tmp_path):
    claims = [
        {"claim": "c", "paper": paper, "ours": "1", "holds": holds, "verdict": verdict, "published": published}
        for paper, holds, verdict, published in (
            ("-", True, "holds", True),
            ("5", False, "does not hold", True),
            ("5", True, "holds", False),
            ("5", None, "not shown", False),
        )
    ]
    write_record(tmp_path / "one", record(claims=claims))
    write_record(tmp_path / "two", record(claims=claims[:2]))
    page = results_page(tmp_path)
    assert "| [one](#one) | A paper (2021, figure 5) | 1 | 1 | 0 | 1 of 2 |" in page
    assert "| [two](#two) | A paper (2021, figure 5) | 1 | 1 | 0 |  |" in page


def test_no_claim_is_typed_by_hand():
    """The committed records are those of finished runs: their verdicts follow from ``holds``."""
    verdicts = {True: "holds", False: "does not hold", None: "not shown"}
    for folder in RECORDS.iterdir():
        found = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        assert found["claims"]
        assert all(claim["verdict"] == verdicts[claim["holds"]] for claim in found["claims"])
        assert found["rerun"].startswith("rightly reproduce ")
