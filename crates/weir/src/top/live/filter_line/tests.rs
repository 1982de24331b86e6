use super::*;

const LATER: Duration = Duration::from_secs(1);

fn typed(text: &str) -> FilterLine {
    let mut line = FilterLine::default();
    for character in text.chars() {
        line.insert(character, Duration::ZERO);
    }
    line
}

#[test]
fn search_words_become_filters() {
    for (word, filter) in [
        ("443", Some("port = 443")),
        ("70000", None),
        ("10.0.0.0/8", Some("address = 10.0.0.0/8")),
        ("10.0.0.0/33", Some("name ~ 10.0.0.0/33 or host ~ 10.0.0.0/33 or workload ~ 10.0.0.0/33")),
        ("192.168.", Some("address = 192.168.0.0/16")),
        ("10.1", Some("address = 10.1.0.0/16")),
        ("fd00::1", Some("address = fd00::1")),
        ("nginx", Some("name ~ nginx or host ~ nginx or workload ~ nginx")),
        (
            "redis",
            Some(
                "name ~ redis or host ~ redis or workload ~ redis or port in (redis, redis-sentinel)",
            ),
        ),
        ("none", Some("name ~ \"none\" or host ~ \"none\" or workload ~ \"none\"")),
        ("two words", None),
        ("a\\b", Some("name ~ \"a\\\\b\" or host ~ \"a\\\\b\" or workload ~ \"a\\\\b\"")),
    ] {
        match (read(word), filter) {
            (Ok(read), Some(filter)) => assert_eq!(read.became.as_deref(), Some(filter), "{word}"),
            (Err(_), None) => {}
            (read, _) => panic!("{word}: {read:?}"),
        }
    }
    let read = read("class = internet").unwrap();
    assert_eq!(read.became, None);
}

#[test]
fn what_is_typed_takes_effect_after_a_moment() {
    let mut line = typed("class = internet");
    assert_eq!(line.settled(Duration::from_millis(149)), None);
    assert!(line.settled(Duration::from_millis(150)).is_some());
    assert_eq!(line.settled(LATER), None, "once");
    // It may become `source.name`.
    assert_eq!(typed("sour").settled(LATER), None);
    assert!(typed("sourdough").settled(LATER).is_some());
    assert_eq!(typed("class = interne").settled(LATER), None);
    assert!(typed("class = interne").error().unwrap().to_string().contains("internet"));
}

#[test]
fn tab_completes_fields_operators_and_values() {
    for (text, completed) in [
        ("prot", "protocol "),
        ("source.u", "source.unit"),
        ("not cla", "not class "),
        ("protocol", "protocol "),
        ("protocol ", "protocol ="),
        ("class = int", "class = intra_vpc"),
        ("class in (internet, unk", "class in (internet, unknown "),
        ("class = internet a", "class = internet and "),
        ("port = redis-", "port = redis-sentinel "),
        ("no_such", "no_such"),
    ] {
        let mut line = typed(text);
        line.complete(LATER);
        assert_eq!(line.text(), completed);
    }
    let mut line = typed("class = int");
    for expected in ["intra_vpc", "internet", "intra_region", "inter_region", "intra_vpc"] {
        line.complete(LATER);
        assert_eq!(line.text(), format!("class = {expected}"));
    }
}

#[test]
fn values_come_from_the_store_and_are_quoted() {
    let mut line = typed("source.unit = ng");
    line.complete(LATER);
    let want = line.wanted_values().unwrap().clone();
    assert_eq!(want.prefix, "ng");
    line.values(&want, &["ng \"x\"".to_owned()], LATER);
    assert_eq!(line.text(), "source.unit = \"ng \\\"x\\\"\" ");

    // Values for a text that is not there any more change nothing.
    let mut line = typed("unit = ng");
    line.complete(LATER);
    let want = line.wanted_values().unwrap().clone();
    assert_eq!(want.fields.len(), 2);
    line.insert('i', LATER);
    line.values(&want, &["nginx.service".to_owned()], LATER);
    assert_eq!(line.text(), "unit = ngi");
}

#[test]
fn history_goes_both_ways() {
    let history = ["first", "second"].map(str::to_owned);
    let mut line = FilterLine::default();
    for (older, text) in
        [(true, "second"), (true, "first"), (true, "first"), (false, "second"), (false, "")]
    {
        line.recall(&history, older, LATER);
        assert_eq!(line.text(), text);
    }
    line.recall(&[], true, LATER);
    assert_eq!(line.text(), "");
}

#[test]
fn keys_edit_by_whole_characters() {
    let mut line = typed("größe");
    line.left();
    line.left();
    line.backspace(LATER);
    assert_eq!(line.text(), "grße");
    line.home();
    line.left();
    line.delete(LATER);
    line.right();
    line.clear(LATER);
    line.end();
    line.right();
    line.backspace(LATER);
    line.insert('\n', LATER);
    assert!(line.text().len() < "größe".len());
}
