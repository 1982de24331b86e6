use proptest::prelude::*;
use weir_server::answer::{ConnectionRow, End};

use super::*;
use crate::top::live::draw::tests::{answer, empty, full, picture, press};
use crate::top::live::theme::Theme;

fn rows(ids: &[&str], matching: u64) -> Connections {
    let row = |id: &&str| ConnectionRow {
        id: (*id).to_owned(),
        state: Some("CLOSE".to_owned()),
        source: End::default(),
        ..ConnectionRow::default()
    };
    Connections {
        known: matching,
        matching,
        connections: ids.iter().map(row).collect(),
        ..Connections::default()
    }
}

fn take(app: &mut App, ids: &[&str], matching: u64) {
    let asked = app.wants().connections;
    app.fresh(Answer::Connections(asked, rows(ids, matching)));
}

fn selected(app: &App) -> Option<&str> {
    app.selected_connection().map(|row| row.id.as_str())
}

#[test]
fn keys_change_what_is_asked() {
    for (keys, expected) in [
        ("", ""),
        ("v", "ip_version = 4"),
        ("vv", "ip_version = 6"),
        ("vvv", ""),
        ("/443\n", "destination.port = 443"),
        ("/443\x1b", ""),
        ("/class = interne\n", ""),
        ("t", "sort state"),
        ("tt", ""),
        ("s", "sort sent_rate"),
        ("S", "sort port"),
        ("f", "state ESTABLISHED"),
        ("ff", "state TIME_WAIT"),
        ("fff", ""),
        ("F↓\n", "state ESTABLISHED"),
        ("\t\n", "node = alpha"),
        ("\t\n\n", ""),
        ("\t\nc", ""),
        ("←\n", "source.name = nginx.service and destination.name = 10.0.0.7"),
        ("←\n\x1b", ""),
        ("r", ""),
    ] {
        let mut app = full(120, 40);
        press(&mut app, keys);
        let question = app.wants().connections;
        let mut seen = question.filter.to_string();
        if question.filter == Filter::All {
            seen.clear();
        }
        if let Some(state) = &question.state {
            seen = format!("{seen}state {state}");
        }
        if question.sort != ConnectionSort::Rate {
            seen = format!("{seen}sort {}", question.sort.name());
        }
        assert_eq!(seen, expected, "after {keys:?}");
    }
}

#[test]
fn keys_change_the_groups() {
    for (keys, by, since_seconds) in [
        ("", "source.name destination.name", 600),
        ("n", "source.address destination.address", 600),
        ("g", "source.name destination.name destination.port", 600),
        ("ggggg", "class", 600),
        ("ggggggggg", "source.name destination.name", 600),
        ("G \n", "source.name destination.name source.id", 600),
        ("G \x1b", "source.name destination.name", 600),
        ("]", "source.name destination.name", 3_600),
        ("[[[", "source.name destination.name", 60),
        ("]]]]]", "source.name destination.name", 86_400),
    ] {
        let mut app = full(120, 40);
        press(&mut app, keys);
        let want = app.wants().top;
        let fields: Vec<_> = want.by.iter().map(Field::to_string).collect();
        assert_eq!(
            (fields.join(" ").as_str(), want.since_seconds),
            (by, since_seconds),
            "{keys:?}"
        );
    }
}

#[test]
fn keys_that_end() {
    let control = |character| {
        use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
        KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL)
    };
    let mut app = empty(80, 24);
    press(&mut app, "/q");
    assert!(app.line.is_some(), "a letter of the filter ends nothing");
    assert_eq!(app.key(control('c')), After::Quit);
    assert_eq!(app.key(control('z')), After::Suspend);
    assert_eq!(app.key(control('u')), After::GoOn);
    assert_eq!(app.line.as_ref().map(FilterLine::text), Some(""));
}

#[test]
fn an_answer_to_another_question_is_ignored() {
    let mut app = full(80, 24);
    let before = app.wants();
    press(&mut app, "fg");
    app.fresh(Answer::Connections(before.connections, rows(&["old"], 1)));
    app.fresh(Answer::Rates(before.rates, Rates::default()));
    app.fresh(Answer::Top(before.top, Report::default()));
    assert_eq!(selected(&app), Some("alpha/1"));
    assert!(app.is_waiting());
    assert!(app.talkers.is_empty());
    take(&mut app, &["new"], 1);
    assert_eq!(selected(&app), Some("new"));
    assert!(!app.is_waiting());
}

#[test]
fn the_selection_stays_with_its_connection() {
    let mut app = empty(80, 24);
    take(&mut app, &["a", "b", "c"], 3);
    press(&mut app, "↓");
    take(&mut app, &["c", "a", "b"], 3);
    assert_eq!(selected(&app), Some("b"));
    take(&mut app, &["c"], 1);
    assert_eq!(selected(&app), Some("c"));
    take(&mut app, &[], 0);
    assert_eq!(selected(&app), None);
}

#[test]
fn going_down_asks_for_more() {
    let mut app = empty(80, 24);
    take(&mut app, &["a"], 100_000);
    assert_eq!(app.wants().connections.offset, 0);
    press(&mut app, "⇥");
    let question = app.wants().connections;
    assert!(question.offset > 99_000 && question.offset + question.limit >= 100_000);
    assert!(question.limit <= 1_000);
    press(&mut app, "⇤");
    assert_eq!(app.wants().connections.offset, 0);
}

#[test]
fn what_is_typed_takes_effect_by_itself_and_esc_takes_it_back() {
    let mut app = full(80, 24);
    press(&mut app, "/class = internet");
    assert!(!app.tick(Duration::from_millis(100)));
    assert!(app.tick(Duration::from_millis(300)));
    assert_eq!(app.wants().connections.filter.to_string(), "class = internet");
    press(&mut app, "\x1b");
    assert_eq!(app.wants().connections.filter, Filter::All);
}

#[test]
fn values_are_asked_for_while_they_are_wanted() {
    let mut app = full(80, 24);
    press(&mut app, "/source.unit = ng\t");
    let want = app.wants().values.unwrap();
    app.fresh(Answer::Values(want, vec!["nginx.service".to_owned()]));
    assert_eq!(app.line.as_ref().unwrap().text(), "source.unit = nginx.service ");
    assert_eq!(app.wants().values, None);
}

#[test]
fn trouble_is_shown_until_somebody_answers() {
    let mut app = full(80, 24);
    let gone = || Answer::Unreachable { why: "gone".to_owned(), retry_seconds: 2 };
    app.fresh(gone());
    app.tick(Duration::from_secs(5));
    app.fresh(gone());
    assert_eq!(app.trouble.as_ref().unwrap().since, Duration::ZERO);
    assert_eq!(app.trouble.as_ref().unwrap().retry_at, Duration::from_secs(7));
    assert_eq!(selected(&app), Some("alpha/1"), "the last picture stays");
    answer(&mut app);
    assert!(app.trouble.is_none());
}

#[test]
fn rates_of_the_selected_connection_are_kept_per_reading() {
    let mut app = full(80, 24);
    answer(&mut app);
    assert_eq!(app.trace.rates.len(), 1, "the same reading counts once");
    press(&mut app, "↓");
    assert_eq!(app.trace.rates, [(None, None)]);
}

#[test]
fn paused_asks_nothing_again() {
    let mut app = full(80, 24);
    press(&mut app, " ");
    assert!(app.wants().paused);
    assert!(picture(&app, Theme::new(false, false)).contains("PAUSED"));
}

#[derive(Clone, Debug)]
enum Happening {
    Key(char),
    Rows(Vec<u8>, u16),
    Answer,
    Gone,
    Size(u16, u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    let keys: Vec<char> = "qjk/ptsSfFnv []gGhC?c\n\t\x1b↑↓⇟⇤⇥←⌫ax =\"(,443例".chars().collect();
    prop_oneof![
        8 => proptest::sample::select(keys).prop_map(Happening::Key),
        2 => (proptest::collection::vec(0_u8..20, 0..10), 0_u16..500)
            .prop_map(|(ids, more)| Happening::Rows(ids, more)),
        1 => Just(Happening::Answer),
        1 => Just(Happening::Gone),
        1 => (1_u16..130, 1_u16..50).prop_map(|(width, height)| Happening::Size(width, height)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_the_selection_is_on_something(
        happenings in proptest::collection::vec(happening(), 1..60)
    ) {
        let mut app = empty(80, 24);
        for (second, happening) in (0..).zip(happenings) {
            app.tick(Duration::from_secs(second));
            match happening {
                Happening::Key(key) => press(&mut app, &key.to_string()),
                Happening::Rows(ids, more) => {
                    let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    let matching = (ids.len() + usize::from(more)) as u64;
                    take(&mut app, &ids, matching);
                }
                Happening::Answer => answer(&mut app),
                Happening::Gone => app.fresh(Answer::Unreachable {
                    why: "gone".to_owned(),
                    retry_seconds: 1,
                }),
                Happening::Size(width, height) => app.resize(width, height),
            }
            prop_assert!(app.connection_cursor.row() < app.matching().max(1));
            prop_assert!(app.talker_cursor.row() < app.talkers.len().max(1));
            prop_assert!(app.node_cursor.row() < app.nodes.len().max(1));
            prop_assert!(app.connection_cursor.first() <= app.connection_cursor.row());
            picture(&app, Theme::new(true, true));
        }
    }
}
