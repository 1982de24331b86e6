use weir_conntrack::sysctl::Settings;

use super::*;

/// A node on which everything is as it should be.
fn healthy() -> Facts {
    Facts {
        settings: Settings {
            accounting: Some(true),
            count: Some(7),
            bridged_ipv4: Some(true),
            bridged_ipv6: Some(true),
            ..Settings::default()
        },
        tracked: Some(true),
        counted: Counted { bytes: 1_000_000, ..Counted::default() },
        moved: Moved { received: 1_000_000, ..Moved::default() },
        rules: Rules::default(),
    }
}

fn bridged(bytes: u64) -> Moved {
    let bridges = vec![("cni0".to_owned(), bytes)];
    Moved { received: 1_000_000, bridged: bytes, bridges, ..Moved::default() }
}

fn place(name: &str, handle: Option<u64>) -> Place {
    Place { family: "inet", table: "t".to_owned(), name: name.to_owned(), handle }
}

/// What is named, and the command offered, on a node that is healthy but for this.
fn check(spoil: impl FnOnce(&mut Facts), expected: &[(&str, Option<&str>)]) {
    let mut facts = healthy();
    spoil(&mut facts);
    let causes = diagnose(&facts);
    let found: Vec<_> = causes.iter().map(|cause| (cause.name(), cause.remedy())).collect();
    let found: Vec<_> = found.iter().map(|(name, remedy)| (*name, remedy.as_deref())).collect();
    assert_eq!(found, expected, "{facts:#?}");
}

#[test]
fn nothing_is_made_up() {
    check(|_| {}, &[]);
    check(|facts| facts.tracked = None, &[]);
    check(|facts| facts.moved = bridged(500_000), &[]);
    // A bridge that hardly moves anything explains nothing.
    check(
        |facts| {
            facts.moved = bridged(9_999);
            facts.settings.bridged_ipv4 = Some(false);
        },
        &[],
    );
}

#[test]
fn settings_that_are_off_are_named() {
    check(
        |facts| facts.settings = Settings::default(),
        &[("conntrack_absent", Some("modprobe nf_conntrack"))],
    );
    check(
        |facts| facts.tracked = Some(false),
        &[("tracking_idle", Some("weir up --activate-conntrack"))],
    );
    check(
        |facts| {
            facts.settings.accounting = Some(false);
            facts.counted.entries_without_counters = 3;
        },
        &[
            ("accounting_off", Some("sysctl -w net.netfilter.nf_conntrack_acct=1")),
            ("entries_without_counters", None),
        ],
    );
    check(
        |facts| {
            facts.moved = bridged(500_000);
            facts.settings.bridged_ipv4 = Some(false);
        },
        &[("bridge_not_tracked", Some("sysctl -w net.bridge.bridge-nf-call-iptables=1"))],
    );
    let both = "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1 \
                net.bridge.bridge-nf-call-ip6tables=1";
    check(
        |facts| {
            facts.moved = bridged(500_000);
            (facts.settings.bridged_ipv4, facts.settings.bridged_ipv6) = (None, None);
        },
        &[("bridge_not_tracked", Some(both))],
    );
}

#[test]
fn rules_and_datapaths_are_named() {
    check(
        |facts| facts.rules.notrack = vec![place("pre", Some(4)), place("out", Some(9))],
        &[("notrack_rules", Some("nft delete rule inet t pre handle 4"))],
    );
    check(|facts| facts.rules.unknown = Some("legacy".to_owned()), &[("notrack_unknown", None)]);
    check(|facts| facts.counted.offloaded_entries = 2, &[("offloaded", None)]);
    check(
        |facts| facts.rules.flowtables = vec![place("fast", None)],
        &[("offloaded", Some("nft 'add flowtable inet t fast { counter; }'"))],
    );
    check(
        |facts| {
            facts.moved.bypassed = 900_000;
            facts.moved.interfaces = vec![("eth0".to_owned(), 900_000)];
        },
        &[("bypassed", None)],
    );
}

#[test]
fn sentences_name_what_is_concerned() {
    let mut facts = healthy();
    facts.moved = bridged(500_000);
    facts.settings.bridged_ipv6 = None;
    facts.moved.bypassed = 5;
    facts.moved.interfaces = ["a", "b", "c", "d", "e", "f"].map(|name| (name.into(), 1)).to_vec();
    facts.rules.notrack = vec![place("pre", Some(4))];
    let sentences: Vec<String> = diagnose(&facts).iter().map(Cause::to_string).collect();
    assert!(sentences[0].contains("500000 bytes") && sentences[0].contains("(cni0)"));
    assert!(sentences[1].ends_with("a, b, c, d and 2 more"), "{}", sentences[1]);
    assert!(sentences[2].ends_with("inet t pre"), "{}", sentences[2]);
}

fn second(number: u64) -> BootTime {
    BootTime(number * SECOND)
}

fn share(coverage: &mut Coverage, at: u64, counted: u64, expected: u64) {
    let moved = Moved { received: expected, ..Moved::default() };
    coverage.add(second(at), Counted { bytes: counted, ..Counted::default() }, &moved);
}

#[test]
fn the_ratio_is_of_the_last_minute() {
    let mut coverage = Coverage::default();
    assert_eq!((coverage.ratio(), coverage.is_low()), (None, false));
    share(&mut coverage, 100, 0, MIN_BYTES - 1);
    assert_eq!(coverage.ratio(), None, "too little to say");
    share(&mut coverage, 110, 0, MIN_BYTES * 3 + 1);
    assert_eq!(coverage.ratio(), Some(0.0));
    assert!(coverage.is_low());
    assert_eq!(coverage.missing_bytes(), MIN_BYTES * 4);
    share(&mut coverage, 160, MIN_BYTES * 4, MIN_BYTES * 4);
    // The first is out of the window, the second is not.
    assert!((coverage.ratio().unwrap() - 4.0 / 7.0).abs() < 1e-5);
    share(&mut coverage, 171, MIN_BYTES, MIN_BYTES);
    assert_eq!(coverage.ratio(), Some(1.0));
    assert!(!coverage.is_low());
    assert_eq!(coverage.total_ratio(), Some(5.0 / 9.0));
    coverage.skip();
    assert_eq!(coverage.incomparable(), 1);
}

#[test]
fn the_window_has_a_limit() {
    let mut coverage = Coverage::default();
    for _ in 0..MAX_INTERVALS * 3 {
        share(&mut coverage, 100, MIN_BYTES, MIN_BYTES * 2);
    }
    assert_eq!(coverage.window.len(), MAX_INTERVALS);
    assert_eq!(coverage.ratio(), Some(0.5));
    let window = u64::try_from(MAX_INTERVALS).unwrap();
    assert_eq!(coverage.missing_bytes(), window * MIN_BYTES);
}
