mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use weir_flow::{EndpointField, Field, Side};
use weir_server::answer::{
    Cause, Cell, Column, ConnectionRow, Connections, End, Gap, NodeStatus, RateRow, Rates, Report,
    State, Status,
};
use weir_store::Measure;

use super::*;
use crate::top::live::Options;
use crate::top::live::wants::Answer;

/// An app with nothing known.
pub(in crate::top::live) fn empty(width: u16, height: u16) -> App {
    let options = Options {
        refresh: Duration::from_secs(1),
        place: "this machine".to_owned(),
        filter: String::new(),
        by: Vec::new(),
        since: Duration::from_mins(10),
        colour: false,
    };
    App::new(&options, width, height)
}

/// An app that has all answers.
pub(in crate::top::live) fn full(width: u16, height: u16) -> App {
    let mut app = empty(width, height);
    answer(&mut app);
    app
}

/// Answers everything the app wants to know.
pub(in crate::top::live) fn answer(app: &mut App) {
    app.fresh(Answer::Status(Box::new(status())));
    app.fresh(Answer::Nodes(rates(&[(&[("node", Some("alpha"))], 3, 2048.0, 3_000_000.0)])));
    let wants = app.wants();
    app.fresh(Answer::Connections(wants.connections.clone(), connections()));
    app.fresh(Answer::Rates(
        wants.rates.clone(),
        rates(&[
            (
                &[("source.name", Some("nginx.service")), ("destination.name", Some("10.0.0.7"))],
                2,
                1500.0,
                3_000_000.0,
            ),
            (&[("source.name", Some("例え.service")), ("destination.name", None)], 1, 548.0, 0.0),
        ]),
    ));
    app.fresh(Answer::Top(wants.top, report()));
    if let Some(series) = app.wants().series {
        app.fresh(Answer::Series(series, self::series()));
    }
}

fn status() -> Status {
    let node = NodeStatus {
        node: "alpha".to_owned(),
        state: State::Reading,
        source: "conntrack".to_owned(),
        accounting: Some(true),
        coverage: Some(0.99),
        ..NodeStatus::default()
    };
    Status { nodes: vec![node], ..Status::default() }
}

/// Fields, connections, sent and received per second.
type Sums<'a> = (&'a [(&'a str, Option<&'a str>)], u64, f64, f64);

fn rates(rows: &[Sums<'_>]) -> Rates {
    let row = |(fields, connections, sent, received): &Sums<'_>| {
        let fields: BTreeMap<_, _> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
            .collect();
        RateRow {
            fields,
            connections: *connections,
            connections_uncounted: 0,
            bytes_sent_per_second: Some(*sent),
            bytes_received_per_second: Some(*received),
        }
    };
    Rates {
        at: Some("2026-01-31T08:00:00Z".to_owned()),
        interval_seconds: Some(1.02),
        rates: rows.iter().map(row).collect(),
        more: false,
        peers: Vec::new(),
    }
}

fn report() -> Report {
    let name = |side| Column::Field(Field::Endpoint(side, EndpointField::Name));
    let text = |text: &str| Cell::Text(text.to_owned());
    Report {
        columns: vec![
            name(Side::Source),
            name(Side::Destination),
            Column::Measure(Measure::BytesSent),
            Column::Measure(Measure::BytesReceived),
        ],
        rows: vec![
            vec![
                text("nginx.service"),
                text("10.0.0.7"),
                Cell::Number(70_000),
                Cell::AtLeast(5_000_000_000),
            ],
            vec![text("sshd.service"), text("10.0.0.9"), Cell::Number(900), Cell::Unknown],
        ],
        since: 1_769_846_400,
        until: 1_769_847_000,
        level_seconds: 10,
        step_seconds: None,
        more: false,
    }
}

fn series() -> Report {
    let row = |step: u64, sent| {
        vec![Cell::Time(1_769_846_400 + step * 10), Cell::Number(sent), Cell::Number(0)]
    };
    Report {
        columns: vec![
            Column::Time,
            Column::Measure(Measure::BytesSent),
            Column::Measure(Measure::BytesReceived),
        ],
        rows: (0..60).map(|step| row(step, step * step % 700)).collect(),
        since: 1_769_846_400,
        until: 1_769_847_000,
        level_seconds: 10,
        step_seconds: Some(10),
        more: false,
    }
}

fn end(name: &str, address: &str, port: u16) -> End {
    End {
        id: format!("host/alpha/{name}"),
        name: name.to_owned(),
        kind: "host".to_owned(),
        address: address.to_owned(),
        port: Some(port),
        host: Some("alpha".to_owned()),
        unit: Some(name.to_owned()),
        ..End::default()
    }
}

fn connections() -> Connections {
    let busy = ConnectionRow {
        id: "alpha/1".to_owned(),
        node: "alpha".to_owned(),
        protocol: "tcp".to_owned(),
        state: Some("ESTABLISHED".to_owned()),
        source: end("nginx.service", "10.0.0.2", 40_000),
        destination: End { kind: "local".to_owned(), ..end("10.0.0.7", "10.0.0.7", 443) },
        service: Some("10.96.0.10:443".to_owned()),
        service_name: None,
        translated_source: Some("192.0.2.1:50000".to_owned()),
        port_name: Some("https".to_owned()),
        class: "intra_vpc".to_owned(),
        start: Some("2026-01-31T07:00:00Z".to_owned()),
        age_seconds: Some(3_600.0),
        idle_seconds: Some(0.4),
        bytes_sent: Some(70_000),
        bytes_received: Some(5_000_000_000),
        packets_sent: Some(900),
        packets_received: Some(4_000_000),
        bytes_sent_per_second: Some(1500.0),
        bytes_received_per_second: Some(3_000_000.0),
        picked_up: true,
    };
    let uncounted = ConnectionRow {
        id: "alpha/2".to_owned(),
        protocol: "udp".to_owned(),
        state: Some("unreplied".to_owned()),
        source: end("例え.service", "fd00::2", 5353),
        destination: end("evil\x1b[2Jname", "fd00::3", 53),
        class: "unknown".to_owned(),
        ..ConnectionRow::default()
    };
    let still = ConnectionRow {
        id: "alpha/3".to_owned(),
        protocol: "icmp".to_owned(),
        source: End { port: None, ..end("host", "10.0.0.2", 0) },
        destination: End { port: None, ..end("10.0.0.9", "10.0.0.9", 0) },
        bytes_sent: Some(84),
        bytes_received: Some(84),
        bytes_sent_per_second: Some(0.0),
        bytes_received_per_second: Some(0.0),
        age_seconds: Some(61.0),
        ..ConnectionRow::default()
    };
    Connections {
        at: Some("2026-01-31T08:00:00Z".to_owned()),
        interval_seconds: Some(1.02),
        known: 12_345,
        ended: 0,
        matching: 3,
        left_out: 0,
        bytes_per_second: Some(3_002_048.0),
        connections: vec![busy, uncounted, still],
        peers: Vec::new(),
    }
}

pub(in crate::top::live) fn press(app: &mut App, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\x1b' => KeyCode::Esc,
            '↑' => KeyCode::Up,
            '↓' => KeyCode::Down,
            '⇟' => KeyCode::PageDown,
            '⇤' => KeyCode::Home,
            '⇥' => KeyCode::End,
            '←' => KeyCode::Left,
            '⌫' => KeyCode::Backspace,
            other => KeyCode::Char(other),
        };
        app.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

pub(in crate::top::live) fn picture(app: &App, theme: Theme) -> String {
    let backend = TestBackend::new(app.size.width, app.size.height);
    let mut terminal = Terminal::new(backend).unwrap();
    terminal.draw(|frame| draw(frame, app, theme)).unwrap();
    terminal.backend().to_string()
}

fn unicode(app: &App) -> String {
    picture(app, Theme::new(true, true))
}

#[test]
fn everything_on_a_usual_terminal() {
    insta::assert_snapshot!(unicode(&full(80, 24)));
}

#[test]
fn everything_on_a_large_terminal_with_details() {
    let mut app = full(140, 40);
    answer(&mut app);
    insta::assert_snapshot!(unicode(&app));
}

#[test]
fn nodes_have_a_pane_where_there_is_room() {
    insta::assert_snapshot!(unicode(&full(120, 40)));
}

#[test]
fn details_below_on_a_narrow_terminal() {
    let mut app = full(80, 40);
    press(&mut app, "\n");
    answer(&mut app);
    insta::assert_snapshot!(unicode(&app));
}

#[test]
fn the_busiest_on_a_tiny_terminal() {
    insta::assert_snapshot!(unicode(&full(20, 5)), @r#"
    "10.0.0.7:4… 2.86 MiB"
    "evil\u{1b}…        ?"
    "10.0.0.9           0"
    "                    "
    "                    "
    "#);
    insta::assert_snapshot!(unicode(&full(19, 3)), @r#"
    "too small          "
    "                   "
    "                   "
    "#);
}

#[test]
fn ascii_without_unicode() {
    let text = picture(&full(80, 24), Theme::new(false, false));
    let own = text.replace("例え", "");
    assert!(own.is_ascii(), "{own}");
    insta::assert_snapshot!(text);
}

#[test]
fn before_the_first_answer() {
    insta::assert_snapshot!(unicode(&empty(80, 24)));
}

#[test]
fn what_is_wrong_comes_first() {
    let mut app = full(120, 24);
    let node = NodeStatus {
        node: "alpha".to_owned(),
        state: State::Stalled,
        silent_seconds: Some(90),
        accounting: Some(false),
        coverage: Some(0.5),
        causes: vec![Cause { name: "x".to_owned(), text: "a flowtable; nft delete it".to_owned() }],
        lost_events: 12_000,
        source: "procfs".to_owned(),
        source_limits: Some("short connections are not seen".to_owned()),
        undelivered_batches: 3,
        delivery_waits: Some("disk full".to_owned()),
        ..NodeStatus::default()
    };
    let gap = Gap {
        reason: "lost_events".to_owned(),
        from: "2026-01-31T07:50:00Z".to_owned(),
        to: "2026-01-31T07:51:00Z".to_owned(),
        ..Gap::default()
    };
    let status = Status { nodes: vec![node], gaps: vec![gap], ..Status::default() };
    app.fresh(Answer::Status(Box::new(status)));
    app.now = Duration::from_secs(5);
    app.fresh(Answer::Unreachable { why: "connection refused".to_owned(), retry_seconds: 4 });
    app.tick(Duration::from_secs(8));
    insta::assert_snapshot!(crate::top::live::banners::banners(&app).join("\n"), @r"
    weir does not answer since 3s, retrying (1 s): connection refused
    the agent is stalled for 1m30s; see `weir query status`
    accounting is off, bytes of connections are unknown: sudo sysctl -w net.netfilter.nf_conntrack_acct=1
    only 50 % was counted: a flowtable; nft delete it
    the kernel dropped 12,000 notices of ended connections since the start; their last bytes are declared as a gap
    source procfs: short connections are not seen
    3 batches wait to be stored: disk full
    a gap in the last 10m, the newest 07:50:00Z to 07:51:00Z: lost_events; totals are too low there, see `weir query status`
    ");
    insta::assert_snapshot!(unicode(&app));
}

#[test]
fn a_filter_is_written_with_its_error_below() {
    let mut app = full(80, 24);
    press(&mut app, "/class = internt");
    insta::assert_snapshot!(unicode(&app));
}

#[test]
fn a_word_says_what_it_became() {
    let mut app = full(80, 24);
    press(&mut app, "/redis");
    let text = unicode(&app);
    assert!(text.contains("searches name ~ redis"), "{text}");
    press(&mut app, "\n");
    let text = unicode(&app);
    assert!(text.contains("filter redis · → name ~ redis"), "{text}");
}

#[test]
fn help_and_lists_stand_over_the_rest() {
    let mut app = full(80, 34);
    press(&mut app, "h");
    insta::assert_snapshot!("help", unicode(&app));
    press(&mut app, "\x1bG");
    insta::assert_snapshot!("fields", unicode(&app));
    press(&mut app, "\x1bC");
    insta::assert_snapshot!("columns", unicode(&app));
}

#[test]
fn no_size_is_too_much_or_too_little() {
    let mut app = full(80, 24);
    app.fresh(Answer::Unreachable { why: "gone".to_owned(), retry_seconds: 1 });
    for (overlay, every) in
        [("", 4), ("h", 31), ("\x1bG", 31), ("\x1b/class = x", 31), ("\x1b\n", 31)]
    {
        press(&mut app, overlay);
        for (width, height) in
            (1..=200).flat_map(|width| (1..=60).map(move |height| (width, height)))
        {
            // All widths and all heights, but not all pairs: pictures take time.
            if (width + 3 * height) % every == 0 {
                app.resize(width, height);
                picture(&app, Theme::new(true, true));
            }
        }
    }
}

#[test]
fn a_curve_shows_what_moved_at_all() {
    let theme = Theme::new(true, true);
    let values = [Some(0.0), Some(1.0), Some(50.0), None, Some(100.0)];
    assert_eq!(sparkline(&values, 9, theme), " ▁▄?█");
    assert_eq!(sparkline(&values, 2, theme), "?█");
    assert_eq!(sparkline(&[], 2, theme), "");
}
