use clap::{Command, FromArgMatches as _};

use super::*;

/// `weir up` with these arguments; the environment is the test's.
fn typed(arguments: &[&str]) -> Layered<UpArgs> {
    let command = <Layered<UpArgs> as clap::Args>::augment_args(Command::new("up"));
    let matches = command.try_get_matches_from([&["up"], arguments].concat()).unwrap();
    Layered::from_arg_matches(&matches).unwrap()
}

fn file(text: &str) -> ConfigFile {
    let (file, problems) = ConfigFile::parse(text, "weir.yaml").unwrap();
    assert_eq!(problems, [""; 0]);
    file
}

fn merged(arguments: &[&str], text: &str) -> Resolved {
    let typed = typed(&[arguments, &["--data-dir", "/data"]].concat());
    Layers::new(&typed).merge(typed.args, file(text)).unwrap()
}

fn problems(text: &str) -> String {
    match ConfigFile::parse(text, "weir.yaml") {
        Ok((_, problems)) => problems.join("\n"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "interval: 7s\nlisten: none\nretention: {10s: 2d}\nallow_host: [gauge]\nplain: true";
    let resolved = merged(&["--interval", "2s", "--cpu-budget", "3%"], text);
    insta::assert_snapshot!(print(&resolved), @r#"
    data_dir: /data                                  # flag
    interval: 2s                                     # flag
    cpu_budget: 3%                                   # flag
    conntrack: netlink                               # default
    activate_conntrack: false                        # default
    retention: {10s: 2d, 1m: 14d, 1h: 400d}          # file, line 3
    no_set_sysctls: false                            # default
    listen: none                                     # file, line 2
    insecure_listen: false                           # default
    allow_host: [gauge]                              # file, line 4
    plain: true                                      # file, line 5
    "#);
}

#[test]
fn what_is_printed_says_the_same_when_it_is_read() {
    let arguments = [
        "--interval",
        "1h",
        "--cpu-budget",
        "7%",
        "--retention",
        "10s=0,1m=90061s,1h=400d",
        "--conntrack",
        "/proc/net/nf_conntrack: #1",
        "--listen",
        "[::1]:8885",
        "--allow-host",
        "a.example,::1",
        "--no-set-sysctls",
    ];
    let first = merged(&arguments, "");
    let text = print(&first);
    let typed = typed(&[]);
    let again = Layers::new(&typed).merge(typed.args, file(&text)).unwrap();
    assert_eq!(again.config, first.config, "{text}");
}

#[test]
fn the_example_has_every_setting_at_its_default() {
    assert_eq!(merged(&[], EXAMPLE).config, merged(&[], "").config);
    for key in file::KEYS {
        let lines = EXAMPLE.lines().map(|line| line.trim_start_matches("# "));
        assert!(lines.filter(|line| line.starts_with(&format!("{key}:"))).count() == 1, "{key}");
    }
    let all_on = EXAMPLE.replace("# data_dir:", "data_dir:");
    assert!(file(&all_on).data_dir.is_some());
}

#[test]
fn nothing_written_is_nothing_set() {
    for text in ["", "\n", "# interval: 1s\n", "---\n"] {
        assert_eq!(file(text), ConfigFile::default(), "{text:?}");
    }
}

#[test]
fn everything_wrong_is_said_at_once_and_where() {
    let text = "\
intervall: 5s
interval: 5
cpu_budget: 200%
activate_conntrack: perhaps
retention: 1d
data_dir: weir
allow_host: weir.example.org
listen:
colour: \"\\e[31m\"
plain: [true]
";
    insta::assert_snapshot!(problems(text), @r#"
    weir.yaml:1:1: there is no setting `intervall`; did you mean `interval`?
    weir.yaml:2:11: interval: 5 has no unit; a duration is numbers with the units s, m, h, d: 30s, 10m, 2h30m, 1d
    weir.yaml:3:13: cpu_budget: a percentage of one core, more than 0% and at most 100%: 1%, 0.5%
    weir.yaml:4:21: activate_conntrack: neither true nor false
    weir.yaml:5:12: retention: should be a map: {10s: 1d, 1m: 14d, 1h: 400d}
    weir.yaml:6:11: data_dir: a path in a file begins with /
    weir.yaml:7:13: allow_host: should be a list: [weir.example.org]
    weir.yaml:8:7: listen: has no value
    weir.yaml:9:1: there is no setting `colour`; there are: data_dir, interval, cpu_budget, conntrack, activate_conntrack, retention, no_set_sysctls, listen, insecure_listen, allow_host, plain
    weir.yaml:10:8: plain: is a list, and should be one value
    "#);
}

#[test]
fn what_is_not_yaml_is_said_with_its_place() {
    insta::assert_snapshot!(problems("interval: 5s\ninterval: 6s\n"), @r#"
    the configuration is wrong
      weir.yaml:2:1: duplicate mapping key: interval
    "#);
    insta::assert_snapshot!(problems("interval: [5s\n"), @r#"
    the configuration is wrong
      weir.yaml:1:11: unclosed bracket '['
    "#);
    insta::assert_snapshot!(problems("just text"), @r#"
    the configuration is wrong
      weir.yaml: invalid type: string "just text", expected settings, one per line: `interval: 5s`
    "#);
    insta::assert_snapshot!(problems("- interval"), @r#"
    the configuration is wrong
      weir.yaml: invalid type: sequence, expected settings, one per line: `interval: 5s`
    "#);
    insta::assert_snapshot!(problems("\u{0}"), @r#"
    the configuration is wrong
      weir.yaml:1:1: unexpected character: `\u{0}'
    "#);
}

#[test]
fn a_bomb_is_refused() {
    let lines = (1..12).map(|level| {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("a{level}: &a{level} [{items}]\n")
    });
    let text = format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}", lines.collect::<String>());
    assert!(ConfigFile::parse(&text, "weir.yaml").is_err());
}

#[test]
fn an_open_door_must_be_meant() {
    let resolved = |arguments: &[&str]| {
        let all = [arguments, &["--data-dir", "/data"]].concat();
        resolve(typed(&all)).map(|resolved| resolved.config.warnings())
    };
    let refused = resolved(&["--listen", "0.0.0.0:8885"]).unwrap_err();
    assert!(refused.is::<UsageError>());
    assert!(refused.to_string().contains("--insecure-listen"), "{refused}");
    let warnings = resolved(&["--listen", "0.0.0.0:8885", "--insecure-listen"]).unwrap();
    assert!(warnings[0].starts_with("WARNING: the API on 0.0.0.0:8885"), "{warnings:?}");
    for private in ["none", "127.0.0.1:1", "[::1]:1"] {
        assert_eq!(resolved(&["--listen", private]).unwrap(), [""; 0]);
    }
}
