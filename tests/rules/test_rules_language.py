"""What rules may say, what they may not, and that every refusal names the line, the rule and the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rightly as rt
from rightly.core.errors import DataError, RuleError
from rightly.rules.grammar import read_rule, without_comment

#: sentence -> kind, subject, names, prediction, condition, count
WELL_FORMED = {
    'feature "age" increases "risk"': ("increase", "feature", ("age",), "risk", None, None),
    'feature "age" decreases the prediction': ("decrease", "feature", ("age",), "", None, None),
    'features "a", "b" and "c" increase "risk"': ("increase", "feature", ("a", "b", "c"), "risk", None, None),
    'group "labs" decreases "risk"': ("decrease", "group", ("labs",), "risk", None, None),
    'feature "zip code" does not matter': ("irrelevant", "feature", ("zip code",), None, None, None),
    'features "a" and "b" do not matter for "risk"': ("irrelevant", "feature", ("a", "b"), "risk", None, None),
    'ignore region "corner"': ("irrelevant", "region", ("corner",), None, None, None),
    'ignore features "a", "b"': ("irrelevant", "feature", ("a", "b"), None, None, None),
    'concept "x" does not matter': ("irrelevant", "concept", ("x",), None, None, None),
    'concept "x" increases "risk" when concept "y"': ("increase", "concept", ("x",), "risk", ("when", "y"), None),
    'feature "age" increases "risk" unless concept "treated"': (
        *("increase", "feature", ("age",), "risk"),
        *(("unless", "treated"), None),
    ),
    'genes of pathway "P" act alike': ("act alike", "group", ("P",), None, None, None),
    'features of group "P" matter alike': ("matter alike", "group", ("P",), None, None, None),
    'features "a" and "b" act alike for "risk"': ("act alike", "feature", ("a", "b"), "risk", None, None),
    'examples "a" and "b" are alike': ("examples", "example", ("a", "b"), None, None, None),
    "only few features matter": ("few", "all", (), None, None, None),
    'only 3 features matter for "risk"': ("few", "all", (), "risk", None, 3),
}


@pytest.mark.parametrize("text", WELL_FORMED)
def test_every_sentence_is_read(text):
    rule = read_rule(text, 7)
    found = (rule.kind, rule.subject, rule.names, rule.prediction, rule.condition, rule.count)
    assert found == WELL_FORMED[text]
    assert (rule.text, rule.line, rule.name) == (text, 7, text.replace('"', ""))
    assert (rule.weight, rule.threshold, rule.exceptions) == (1.0, 0.05, 0.0)


@pytest.mark.parametrize("text", [text for text in WELL_FORMED if not text.startswith(("only", "examples"))])
def test_options_stand_at_the_end_of_any_rule(text):
    rule = read_rule(f'{text} (weight 2.5e1, threshold 0.1, exceptions 0.02, name "mine")', 1)
    assert (rule.weight, rule.threshold, rule.exceptions, rule.name) == (25.0, 0.1, 0.02, "mine")
    assert read_rule(f"{text} (weight balance)", 1).weight == "balance"
    assert read_rule(f"{text} (weight 0)", 1).weight == 0


#: malformed rule -> what the message has to say
MALFORMED = {
    # how a rule starts
    '"age" increases "risk"': 'no rule starts with "age"',
    'increase feature "age"': "no rule starts with increase",
    'column "age" increases "risk"': "no rule starts with column",
    "7 features matter": "no rule starts with 7",
    "§ 1": "'§' means nothing here",
    # names
    'feature "age increases risk': "a quote is not closed",
    'feature age increases "risk"': "the feature needs its name, and there is age",
    'feature "" increases "risk"': "the feature has an empty name",
    "feature": "the feature needs its name, and there is the end of the line",
    'features "a" and increase "risk"': "the feature needs its name, and there is increase",
    'features "a", "a" increase "risk"': '"a" is named twice',
    'feature “age” increases "risk"': "'“' means nothing here",
    # what things do
    'feature "age"': '"age" cannot be followed by the end of the line',
    'feature "age" raises "risk"': '"age" cannot be followed by raises',
    'feature "age" does matter': '"does" cannot be followed by matter',
    'feature "age" does not increase "risk"': '"does not" cannot be followed by increase',
    'features "a" "b" increase "risk"': '"a" cannot be followed by "b"',
    'region "corner" increases "risk"': "a region has no direction",
    'ignore "corner"': '"ignore" cannot be followed by "corner"',
    "ignore": '"ignore" cannot be followed by the end of the line',
    'ignore example "a"': '"ignore" cannot be followed by example',
    # predictions
    'feature "age" increases': '"increases" needs a prediction, and there is the end of the line',
    'feature "age" increases risk': '"increases" needs a prediction, and there is risk',
    'feature "age" increases the risk': '"the" cannot be followed by risk',
    'feature "age" does not matter for': '"for" needs a prediction',
    'feature "age" increases ""': "the class has an empty name",
    # groups that are alike
    'feature "a" acts alike': '"a" cannot be followed by acts',
    'feature "a" act alike': "one feature cannot be alike",
    'genes "P" act alike': '"genes" cannot be followed by "P"',
    'genes of "P" act alike': '"genes of" cannot be followed by "P"',
    'genes of pathway "P" act differently': '"act" cannot be followed by differently',
    'features of group "P"': '"P" cannot be followed by the end of the line',
    # examples
    'examples "a" are alike': "1 examples cannot be compared",
    'examples "a", "b" and "c" are alike': "3 examples cannot be compared",
    'examples "a" and "a" are alike': '"a" is named twice',
    'examples "a" and "b" differ': '"b" cannot be followed by differ',
    'examples "a" and "b" are alike unless concept "x"': 'a rule about two examples has no "unless"',
    'examples "a" and "b" are alike (exceptions 0.1)': "a rule about two examples has no exceptions",
    # few features
    "only features matter": '"only" cannot be followed by features',
    "only 0 features matter": "0 features cannot be counted",
    "only 2.5 features matter": "2.5 features cannot be counted",
    "only -3 features matter": "-3 features cannot be counted",
    "only few genes matter": '"few" cannot be followed by genes',
    'only few features matter when concept "x"': 'a rule about all features has no "when"',
    "only few features matter (exceptions 0.1)": "a rule about all features has no exceptions",
    # conditions
    'feature "a" does not matter unless "treated"': '"unless" cannot be followed by "treated"',
    'feature "a" does not matter unless concept': "the concept needs its name",
    'feature "a" does not matter unless concept "x" and concept "y"': "a rule has one condition",
    'feature "a" does not matter if concept "x"': "the rule is complete before if",
    # options
    'ignore feature "a" weight 2': "the rule is complete before weight",
    'ignore feature "a" (weight 2': "weight 2 cannot be followed by the end of the line",
    'ignore feature "a" ()': "( cannot be followed by )",
    'ignore feature "a" (strength 2)': "( cannot be followed by strength",
    'ignore feature "a" (weight)': "weight cannot be )",
    'ignore feature "a" (weight -1)': "weight cannot be -1",
    'ignore feature "a" (weight heavy)': "weight cannot be heavy",
    'ignore feature "a" (weight 1e999)': "weight cannot be 1e999",
    'ignore feature "a" (weight 1.2.3)': "weight cannot be 1.2.3",
    'ignore feature "a" (threshold 2)': "threshold cannot be 2",
    'ignore feature "a" (threshold low)': "threshold cannot be low",
    'ignore feature "a" (exceptions 1)': "exceptions cannot be 1",
    'ignore feature "a" (weight 1, weight 2)': "weight is given twice",
    'ignore feature "a" (name 3)': "name cannot be 3",
    'ignore feature "a" (name "")': "the rule has an empty name",
    'ignore feature "a" (weight 1) please': "the rule is complete before please",
    # two rules in a line
    'ignore feature "a", feature "b"': "the feature needs its name, and there is feature",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_rule_is_refused_with_line_and_reason(text):
    with pytest.raises(RuleError) as caught:
        rt.rules.parse(f'# a comment\n\nfeature "fine" increases "risk"\n  {text}\nonly few features matter')
    error = caught.value
    assert error.line == 4
    assert str(error).startswith(f"line 4: {MALFORMED[text]}"), str(error)
    assert error.got == text
    assert error.expected


def test_at_least_thirty_malformed_rules_are_tried():
    assert len(MALFORMED) >= 30
    assert len(set(MALFORMED.values())) >= 50


def line_of(text: str) -> int:
    """The line that the rule, or what is wrong with it, is told to stand in."""
    try:
        return read_rule(text, 1).line
    except RuleError as error:
        return error.line


@given(st.text(alphabet=st.sampled_from('"(),#\n') | st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_read_or_refused_by_a_rule_error(text):
    """Nothing that a person types ends in another exception."""
    assert line_of(without_comment(text)) == 1


@given(st.lists(st.sampled_from([*"(),", '"a"', '"b"', "2", *set(re.findall(r"[a-z]+", " ".join(WELL_FORMED)))])))
def test_any_order_of_the_words_is_read_or_refused(words):
    assert line_of(" ".join(words)) == 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('ignore feature "a" # why', 'ignore feature "a"'),
        ('ignore feature "# of visits"', 'ignore feature "# of visits"'),
        ('ignore feature "a#b" #c "d', 'ignore feature "a#b"'),
        ("# all", ""),
        ('"open # quote', '"open # quote'),
    ],
)
def test_comments_end_at_quotes(text, kept):
    assert without_comment(text) == kept


def test_a_rule_said_twice_is_refused():
    twice = 'ignore feature "a"\n\nignore   feature "a"  (weight 3)'
    with pytest.raises(RuleError, match="line 3: this is said in line 1 already"):
        rt.rules.parse(twice)
    assert len(rt.rules.parse(twice.replace("weight 3", 'name "again"'))) == 2


def test_no_rule_at_all_is_refused():
    for text in ("", "\n\n", "# nothing yet"):
        with pytest.raises(RuleError, match="there is no rule"):
            rt.rules.parse(text)


# ---- files

FILE = """\
# what the ward knows

rules = '''
feature "age" increases "risk" unless concept "treated"   # as ever
ignore group "address" (weight 3)
'''

[groups]
address = ["zip", "street"]

[concepts]
treated = { feature = "drug", is = "yes" }
old = { feature = "age", above = 65 }
grown = { feature = "age", above = 18, below = 65 }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_holds_rules_groups_and_concepts(tmp_path):
    path = written(tmp_path, FILE)
    rules = rt.rules.parse(path)
    assert rules == rt.rules.parse(str(path))
    assert [(rule.line, rule.text) for rule in rules.rules] == [
        (4, 'feature "age" increases "risk" unless concept "treated"'),
        (5, 'ignore group "address" (weight 3)'),
    ]
    assert rules.groups == {"address": ["zip", "street"]}
    assert rules.concepts == {
        "treated": rt.rules.Condition("drug", level="yes"),
        "old": rt.rules.Condition("age", above=65),
        "grown": rt.rules.Condition("age", above=18, below=65),
    }


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("rules = '''\n", "rules = '''", 3),  # text on the line of the key
        ("rules = '''\n", 'rules = """\n', 4),
        ("rules = '''\n", "\"rules\"   ='''\n\n", 5),
    ],
)
def test_lines_are_those_of_the_file(tmp_path, before, after, line):
    text = FILE.replace(before, after)
    if '"""' in after:
        text = text.replace("\n'''", '\n"""')
    rules = rt.rules.parse(written(tmp_path, text))
    assert rules.rules[0].line == line
    assert text.splitlines()[line - 1].endswith('"treated"   # as ever')
    with pytest.raises(RuleError, match=f"line {line}: no rule starts with fature"):
        rt.rules.parse(written(tmp_path, text.replace("feature", "fature", 1)))


#: (what is replaced, by what, the line to be named, the reason)
MALFORMED_FILES = [
    ("[groups]", "[groups", 8, "this is no TOML"),
    ("rules = '''", "rule = '''", 3, "'rule' means nothing here"),
    ("[groups]", "[goups]", 8, "'goups' means nothing here"),
    ('["zip", "street"]', '"zip"', 9, "the group 'address' is no list of features"),
    ('["zip", "street"]', "[]", 9, "the group 'address' is no list of features"),
    ('["zip", "street"]', "[1, 2]", 9, "the group 'address' is no list of features"),
    (', is = "yes"', "", 12, "the concept 'treated' cannot be read"),
    ('feature = "drug", ', "", 12, "the concept 'treated' cannot be read"),
    ('is = "yes"', 'equals = "yes"', 12, "the concept 'treated' cannot be read"),
    ('is = "yes"', 'is = "yes", above = 1', 12, "the concept 'treated' cannot be read"),
    ("above = 65", 'above = "65"', 13, "the concept 'old' cannot be read"),
    ("above = 65", "above = true", 13, "the concept 'old' cannot be read"),
    ('{ feature = "age", above = 65 }', '"age > 65"', 13, "the concept 'old' cannot be read"),
    ('feature "age"', 'fature "age"', 4, "no rule starts with fature"),
]


@pytest.mark.parametrize(("before", "after", "line", "reason"), MALFORMED_FILES)
def test_a_malformed_file_is_refused_with_line_and_reason(tmp_path, before, after, line, reason):
    assert before in FILE
    with pytest.raises(RuleError) as caught:
        rt.rules.parse(written(tmp_path, FILE.replace(before, after, 1)))
    assert str(caught.value).startswith(f"line {line}: {reason}"), str(caught.value)
    assert caught.value.expected


@pytest.mark.parametrize(("text", "got"), [("", "no rules"), ("rules = ['a']", "list"), ("rules = 3", "int")])
def test_a_file_without_a_text_of_rules_is_refused(tmp_path, text, got):
    with pytest.raises(RuleError, match="rules are a text") as caught:
        rt.rules.parse(written(tmp_path, text))
    assert caught.value.got == got


def test_groups_that_are_no_table_are_refused(tmp_path):
    with pytest.raises(RuleError, match="line 1: groups are a table"):
        rt.rules.parse(written(tmp_path, "groups = 3\nrules = 'only few features matter'"))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        rt.rules.parse(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        rt.rules.parse(tmp_path / "bytes.toml")
