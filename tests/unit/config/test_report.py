"""Reports: where mistakes stand, what they suggest, and what follow-up complaints are held back."""

import pytest

from castlegate.config.report import ConfigError, Position, Report, describe, listed, near, show, show_path, suggest


def at(line: int) -> Position:
    return Position("g.yaml", line, 1)


def test_mistakes_come_in_the_order_of_the_file_and_once() -> None:
    report = Report()
    report.positions = {(): at(1), ("a",): at(9), ("b",): at(3)}
    report.place("a").mistake("later")
    report.place("b").mistake("earlier")
    report.place("b").mistake("earlier")
    assert str(report).splitlines() == ["g.yaml:3:1: 'b': earlier", "g.yaml:9:1: 'a': later"]


def test_what_has_no_place_of_its_own_stands_where_it_belongs() -> None:
    report = Report()
    report.positions = {(): at(1), ("routes", "GET /x"): at(5)}
    report.place("routes", "GET /x", "headers", "request").mistake("wrong")
    assert str(report) == "g.yaml:5:1: 'headers.request' of route 'GET /x': wrong"


def test_a_mistake_in_a_part_of_a_text_has_the_column_of_that_part_if_it_is_known() -> None:
    report = Report()
    report.positions = {("a",): Position("g.yaml", 1, 5), ("b",): Position("g.yaml", 2, 5)}
    report.begins = {("a",): 1}
    report.place("a").inside(0).mistake("at its first letter, behind the quote")
    report.place("a").inside(7).mistake("further on")
    report.place("a").mistake("all of it")
    report.place("b").inside(7).mistake("somewhere")
    assert [str(mistake) for mistake in report.mistakes] == [
        "g.yaml:1:5: 'a': all of it",
        "g.yaml:1:6: 'a': at its first letter, behind the quote",
        "g.yaml:1:13: 'a': further on",
        "g.yaml:2:5: 'b': somewhere",
    ]
    assert report.place("a").inside(3).spoilt


def test_without_a_file_the_path_is_shown() -> None:
    report = Report()
    report.place("routes", "GET /x", "call").mistake("wrong")
    report.place().mistake("all wrong")
    assert str(report).splitlines() == ["routes['GET /x'].call: wrong", "all wrong"]


def test_a_report_with_mistakes_is_raised_whole() -> None:
    report = Report()
    report.raise_if_any()
    report.place("a").mistake("wrong")
    with pytest.raises(ConfigError, match=r"^a: wrong$") as raised:
        report.raise_if_any()
    assert raised.value.report is report


def test_a_place_is_spoilt_by_a_mistake_right_there() -> None:
    report = Report()
    report.place("a", "b").mistake("wrong")
    assert report.place("a", "b").spoilt
    assert not report.place("a").spoilt
    assert not report.place("a", "b", "c").spoilt


def test_what_came_from_the_environment_is_shown_as_its_name() -> None:
    report = Report()
    report.substituted["hunter2"] = "${PASSWORD}"
    report.written["a",] = "x ${PASSWORD}"
    place = report.place("a")
    place.mistake(f"found {place.shown('x hunter2')}")
    place.mistake("a message that forgot: hunter2")
    assert [mistake.text for mistake in report.mistakes] == [
        "found 'x ${PASSWORD}'",
        "a message that forgot: ${PASSWORD}",
    ]


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("time_out", ["timeout", "call"], "timeout"),
        ("strip-prefix", ["strip_prefix", "add_prefix"], "strip_prefix"),
        ("Timeout", ["timeout"], "timeout"),
        ("GTE", ["GET", "PUT"], "GET"),
        ("integer", ["string", "int", "number"], "int"),
        ("auth", ["patch", "call"], None),
        ("x", ["timeout"], None),
    ],
)
def test_the_nearest_right_word(word: str, known: list[str], found: str | None) -> None:
    assert near(word, known) == found


def test_a_suggestion_or_else_what_there_is() -> None:
    assert suggest("usres", ["users", "orders"], "there are") == "; did you mean 'users'?"
    assert suggest("payments", ["users", "orders"], "there are") == "; there are users and orders"
    assert suggest("payments", []) == ""
    assert listed(range(30)).endswith(", 24 and 5 more")


def test_paths_and_values_in_words() -> None:
    assert show_path(("services", "a-b", "http", "instances", 0)) == "services.a-b.http.instances[0]"
    assert describe(("routes", "GET /x")) == "route 'GET /x'"
    assert describe(("kafka", "topics", "single")) == "'kafka.topics.single'"
    assert show("a\nb") == "'a\\nb'"
    assert show("x" * 200) == f"'{'x' * 80}...'"
    assert [show(None), show(True), show(5)] == ["null", "true", "5"]
