//! What the language means, and that no text breaks it.

use std::net::IpAddr;

use proptest::prelude::*;

use super::lex::KEYWORDS;
use super::value::{ValueType, network};
use super::*;
use crate::class::Class;
use crate::endpoint::{Endpoint, EndpointKind, Name, Resolution, Unresolved};
use crate::field::Side;
use crate::tuple::Protocol;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn canonical(text: &str) -> String {
    Filter::parse(text).unwrap_or_else(|error| panic!("{}", error.render(text))).to_string()
}

fn rendered(text: &str) -> String {
    Filter::parse(text).unwrap_err().render(text)
}

/// nginx on this host answers curl, which dialled a service address.
fn check(text: &str, expected: bool) {
    let source = Endpoint {
        host: Some("box".into()),
        executable: Some("Curl".into()),
        ..Endpoint::bare(EndpointKind::Host, ip("10.1.2.3"))
    };
    let destination = Endpoint {
        host: Some("box".into()),
        unit: Some("nginx.service".into()),
        ..Endpoint::bare(EndpointKind::Host, ip("10.9.9.9"))
    };
    let flow = FlowView {
        source: &source,
        destination: &destination,
        protocol: Protocol::TCP,
        destination_port: 8443,
        service: Some((ip("10.96.0.10"), 443)),
        service_name: Some("shop/web"),
        class: Class::SameNode,
        node: "box",
    };
    let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{}", error.render(text)));
    assert_eq!(filter.matches(&flow), expected, "{text}");
}

#[test]
fn tests_mean_what_they_say() {
    check("", true);
    check("all", true);
    check("not all", false);
    check("source.executable = Curl", true);
    check("source.executable = curl", false);
    check("source.executable ~ cur", true);
    check("source.executable ~ \"\"", true);
    check("source.unit ~ \"\"", false);
    check("destination.unit in (ssh.service, nginx.service)", true);
    check("destination.unit not in (ssh.service, nginx.service)", false);
    check("source.address = 10.1.0.0/16", true);
    check("source.address = 10.1.2.3", true);
    check("source.address = 0.0.0.0/0", true);
    check("source.address = ::/0", false);
    check("source.address != 10.1.2.4", true);
    check("port = 8443 and port = https-alt", true);
    check("destination.port < 8443", false);
    check("destination.port <= 8443 and port >= 8443 and port > 8000 and port < 9000", true);
    check("protocol = tcp and protocol = 6 and protocol != udp", true);
    check("service = 10.96.0.10:443", true);
    check("service = 10.96.0.10:80", false);
    check("service = none", false);
    check("class = same_node", true);
    check("class in (internet, INTRA_VPC)", false);
    check("node = box", true);
    check("ip_version = 4 and not ip_version = 6", true);
    check("source.kind = host", true);
    check("source.id = host/box/Curl and destination.id = host/box/nginx.service", true);
    check("source.unresolved = none", true);
    check("source.unresolved = socket_gone", false);
}

#[test]
fn an_absent_field_equals_nothing_and_differs_from_everything() {
    check("source.unit = nginx.service", false);
    check("source.unit != nginx.service", true);
    check("not source.unit = nginx.service", true);
    check("source.unit !~ nginx", true);
    check("source.unit = none", true);
    check("source.unit != none", false);
    check("source.unit in (none, nginx.service)", true);
    check("source.unit = \"none\"", false);
}

#[test]
fn a_bare_field_asks_both_sides() {
    check("unit = nginx.service", true);
    check("executable = Curl", true);
    check("unit = nginx.service and unit = none", true);
    check("unit != nginx.service", false);
    check("unit != ssh.service", true);
    check("address = 10.9.0.0/16 and address = 10.1.0.0/16", true);
    check("name ~ NGINX and name ~ curl", true);
    check("host != box", false);
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    check("port = 8443 or port = 1 and port = 2", true);
    check("(port = 8443 or port = 1) and port = 2", false);
    check("not port = 1 and port = 2", false);
    check("not (port = 1 and port = 2)", true);
    check("NOT port IN (1, 2) AND Source.Kind = Host", true);
}

#[test]
fn canonical_text() {
    let expected = "source.unit = nginx.service and destination.port in (80, 443) \
                    and class != internet";
    assert_eq!(
        canonical(
            "source.unit = \"nginx.service\"  AND port in (http,https)and not class=internet"
        ),
        expected
    );
    assert_eq!(
        canonical("(port=1 or port=2) or (port=3)"),
        canonical("port=1 or port=2 or port=3")
    );
    assert_eq!(
        canonical("port=1 or (port=2 or port=3)"),
        "destination.port = 1 or (destination.port = 2 or destination.port = 3)"
    );
    assert_eq!(canonical("address = 10.1.2.3/8"), "address = 10.0.0.0/8");
    assert_eq!(canonical("address = FD00:0::1/128"), "address = fd00::1");
    assert_eq!(canonical("service = '[fd00::1]:80'"), "service = [fd00::1]:80");
    assert_eq!(canonical("protocol = 6"), "protocol = tcp");
    assert_eq!(canonical("unit = 'a b' or unit = 'none'"), "unit = \"a b\" or unit = \"none\"");
    assert_eq!(
        canonical(r"unit = dev-disk-by\x2duuid.device"),
        r"unit = dev-disk-by\x2duuid.device"
    );
    assert_eq!(canonical(r#"unit = "\u{7}\\\"ä""#), r#"unit = "\u{7}\\\"ä""#);
    assert_eq!(canonical("not port < 3"), "not destination.port < 3");
    assert_eq!(canonical(" \n"), "");
}

#[test]
fn errors_point_and_name_the_nearest() {
    assert_eq!(
        rendered("port = 80 and destination.unti = nginx.service"),
        "read filter, at byte 14: there is no field `destination.unti`; did you mean \
         `destination.unit`?\n  port = 80 and destination.unti = nginx.service\n                \
         ^^^^^^^^^^^^^^^^"
    );
    for (text, part) in [
        ("src.ip = 10.0.0.1", "did you mean `source.address`?"),
        ("process = x", "did you mean `executable`?"),
        ("prot = tcp", "did you mean `port`?"),
        ("source.port = 4", "ephemeral"),
        ("class = internett", "`internett` is not a class; did you mean `internet`?"),
        ("kind = hots", "did you mean `host`?"),
        ("port = htps", "did you mean `https`?"),
        ("port = 65536", "0 to 65535"),
        ("protocol = tpc", "did you mean `tcp`?"),
        ("unresolved = socketgone", "did you mean `socket_gone`?"),
        ("ip_version = 5", "4 or 6"),
        ("address = 10.0.0.0/33", "prefix"),
        ("service = 10.0.0.1", "10.96.0.10:80"),
        ("class = none", "`none` is not a class"),
        ("unit < 3", "`unit` cannot be tested with `<`"),
        ("class ~ x", "it takes =, !=, in (…) and not in (…)"),
        ("unit =", "expected a value, found the end"),
        ("unit = and", "quoted"),
        ("unit nginx", "expected an operator (=, !=, in, ~, <, …), found `nginx`"),
        ("unit not = x", "expected `in`, found `=`"),
        ("unit in x", "expected `(` and a list of values"),
        ("unit in ()", "expected a value, found `)`"),
        ("unit in (a b)", "expected `,` or `)`, found `b`"),
        ("unit = a unit = b", "expected `and`, `or` or the end"),
        ("(unit = a", "expected `)`, `and` or `or`, found the end"),
        ("unit = a)", "expected `and`, `or` or the end, found `)`"),
        ("and", "expected a field"),
        ("unit = \"a", "closing \""),
        ("unit = \"\\x\"", "unknown escape"),
        ("unit = \"\\u{110000}\"", "unknown escape"),
        ("unit ! a", "unexpected character '!'"),
        ("unit = a\u{0}b", "unexpected character '\\0'"),
    ] {
        let rendered = rendered(text);
        assert!(rendered.contains(part), "{rendered}");
        assert!(rendered.ends_with('^'), "{rendered}");
    }
}

#[test]
fn the_error_line_is_short_and_harmless() {
    let text = format!(
        "unit = a\nor unit = \"\u{1b}[31mü\" {} xor {}",
        "or all ".repeat(40),
        "x ".repeat(200)
    );
    let error = Filter::parse(&text).unwrap_err();
    let rendered = error.render(&text);
    let lines: Vec<&str> = rendered.lines().collect();
    assert_eq!(lines.len(), 3, "{rendered}");
    assert!(lines[1].chars().count() <= 2 * 60 + 4, "{rendered}");
    assert!(!rendered.contains('\u{1b}'));
    let caret = lines[2].chars().position(|c| c == '^').unwrap();
    assert_eq!(lines[1].chars().skip(caret).take(3).collect::<String>(), "xor");
    // An error asked to point into another text still answers.
    assert!(error.render("ä").contains('^'));
}

#[test]
fn limits_are_errors() {
    let problem = |text: &str| Filter::parse(text).unwrap_err().problem;
    let nested = |depth: usize| format!("{}port = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(problem(&nested(MAX_DEPTH + 1)), Problem::TooDeep);
    assert_eq!(problem(&"not ".repeat(4_000)), Problem::TooDeep);
    assert_eq!(problem(&"(".repeat(MAX_BYTES)), Problem::TooDeep);
    let tests = |count: usize| vec!["port = 1"; count].join(" or ");
    assert!(Filter::parse(&tests(MAX_TESTS)).is_ok());
    assert_eq!(problem(&tests(MAX_TESTS + 1)), Problem::TooManyTests);
    assert_eq!(problem(&" ".repeat(MAX_BYTES + 1)), Problem::TooLong { bytes: MAX_BYTES + 1 });
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9._@/:\\\\-]{1,12}",
        "\\PC{0,6}",
        ".{0,6}",
        proptest::sample::select(KEYWORDS.to_vec()).prop_map(str::to_owned),
    ]
}

fn any_value(subject: Subject) -> BoxedStrategy<Value> {
    let number = |numbers: std::ops::Range<u16>| numbers.prop_map(Value::Number).boxed();
    let codes = |count: usize| number(0..u16::try_from(count).unwrap());
    let text = || any_text().prop_map(Value::Text);
    let absent = || Just(Value::Absent);
    let field = match subject {
        Subject::Either(field) | Subject::Field(Field::Endpoint(_, field)) => field,
        Subject::Field(field) => {
            return match field {
                Field::DestinationPort => number(0..u16::MAX),
                Field::Protocol => number(0..256),
                Field::Service => prop_oneof![
                    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| Value::Service(ip, port)),
                    absent()
                ]
                .boxed(),
                Field::Class => codes(Class::ALL.len()),
                Field::IpVersion => prop_oneof![Just(4), Just(6)].prop_map(Value::Number).boxed(),
                Field::ServiceName => prop_oneof![text(), absent()].boxed(),
                Field::Node | Field::Endpoint(..) => text().boxed(),
            };
        }
    };
    match field {
        EndpointField::Kind => codes(EndpointKind::ALL.len()),
        EndpointField::Unresolved => prop_oneof![codes(Unresolved::ALL.len()), absent()].boxed(),
        EndpointField::Address => (any::<IpAddr>(), 0_u8..=128)
            .prop_map(|(ip, length)| {
                let length = length.min(if ip.is_ipv4() { 32 } else { 128 });
                Value::Prefix(network(ip, length), length)
            })
            .boxed(),
        EndpointField::Resolution => prop_oneof![codes(Resolution::ALL.len()), absent()].boxed(),
        EndpointField::Id | EndpointField::OwnerId | EndpointField::Name => text().boxed(),
        _ => prop_oneof![text(), absent()].boxed(),
    }
}

fn any_test() -> impl Strategy<Value = Filter> {
    let subjects: Vec<Subject> = Field::all()
        .map(Subject::Field)
        // `node` and `service` are fields of the flow itself.
        .chain(EndpointField::ALL.into_iter().map(Subject::Either).filter(
            |subject| match subject {
                Subject::Either(field) => Field::parse(field.name()).is_none(),
                Subject::Field(_) => true,
            },
        ))
        .collect();
    let operators = [
        Operator::In,
        Operator::Contains,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
    ];
    (proptest::sample::select(subjects), proptest::sample::select(operators.to_vec()))
        .prop_flat_map(|(subject, operator)| {
            let takes = ValueType::of(subject).takes(operator);
            let operator = if takes { operator } else { Operator::In };
            let count = if operator == Operator::In { 1..4_usize } else { 1..2 };
            proptest::collection::vec(any_value(subject), count).prop_map(move |mut values| {
                if operator == Operator::Contains && values[0] == Value::Absent {
                    values[0] = Value::Text("none".to_owned());
                }
                Filter::Test(Test { subject, operator, values })
            })
        })
}

fn any_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![9 => any_test().boxed(), 1 => Just(Filter::All).boxed()].prop_recursive(
        6,
        40,
        2,
        |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                pair.clone().prop_map(|(left, right)| Filter::And(left.into(), right.into())),
                pair.prop_map(|(left, right)| Filter::Or(left.into(), right.into())),
                inner.prop_map(|filter| Filter::Not(filter.into())),
            ]
        },
    )
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let name = || proptest::option::of("[ab]{1,2}".prop_map(Name::from));
    (any::<IpAddr>(), 0_usize..4, name(), name(), name()).prop_map(
        |(address, kind, host, unit, executable)| Endpoint {
            host,
            unit,
            executable,
            ..Endpoint::bare(EndpointKind::ALL[kind], address)
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(filter in any_filter()) {
        let text = filter.to_string();
        let read = Filter::parse(&text);
        prop_assert_eq!(read.as_ref().map_err(|error| error.render(&text)), Ok(&filter), "{}", text);
    }

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        if let Err(error) = Filter::parse(&text) {
            prop_assert!(error.render(&text).contains('^'));
        }
    }

    #[test]
    fn no_text_of_the_language_s_own_words_panics(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "unit", "port", "source.address", "class", "service", "and", "or", "not", "in", "none",
                "all", "(", ")", ",", "=", "!=", "<", ">=", "~", "!~", "1", "10.0.0.0/8", "\"", "'", "\\",
                "internet", "[::1]:8", "ä", "\n",
            ]),
            0..30,
        )
    ) {
        let text = words.join(" ");
        match Filter::parse(&text) {
            Ok(filter) => {
                let printed = filter.to_string();
                prop_assert_eq!(Filter::parse(&printed), Ok(filter));
            }
            Err(error) => prop_assert!(error.render(&text).contains('^')),
        }
    }

    #[test]
    fn negation_is_exact(
        filter in any_filter(),
        source in any_endpoint(),
        destination in any_endpoint(),
        port in any::<u16>(),
    ) {
        let flow = FlowView {
            source: &source,
            destination: &destination,
            protocol: Protocol::TCP,
            destination_port: port,
            service: None,
            service_name: None,
            class: Class::Internet,
            node: "a",
        };
        let negated = Filter::Not(Box::new(filter.clone()));
        prop_assert_ne!(filter.matches(&flow), negated.matches(&flow));
    }

    #[test]
    fn a_bare_field_is_either_side(
        test in any_test(),
        source in any_endpoint(),
        destination in any_endpoint(),
    ) {
        let Filter::Test(Test { subject: Subject::Either(field), operator, values }) = test else {
            return Ok(());
        };
        let flow = FlowView {
            source: &source,
            destination: &destination,
            protocol: Protocol::TCP,
            destination_port: 1,
            service: None,
            service_name: None,
            class: Class::Internet,
            node: "a",
        };
        let holds = |subject| {
            let values = values.clone();
            Filter::Test(Test { subject, operator, values }).matches(&flow)
        };
        let [at_source, at_destination] = [Side::Source, Side::Destination]
            .map(|side| holds(Subject::Field(Field::Endpoint(side, field))));
        prop_assert_eq!(holds(Subject::Either(field)), at_source || at_destination);
    }
}
