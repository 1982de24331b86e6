//! The screen of `weir up` and `weir top` in a real terminal, over real connections. Needs root and
//! tmux.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::panic, reason = "a test that waited in vain should say for what")]

#[path = "../up/machine.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod machine;
mod tmux;
mod totals;
mod wire;

use std::fs;
use std::process::Command;

use self::machine::until;
use self::tmux::Terminal;
use self::wire::Wire;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const SIZE: (u16, u16) = (120, 40);
/// The connections that last as long as the traffic, as the screen writes their destinations.
const LONG: [&str; 4] = ["10.77.0.2:8080", "10.77.0.3:9090", "[fd77::2]:8443", "10.77.0.2:5353"];

fn shows_traffic(screen: &str) -> bool {
    LONG.iter().all(|connection| screen.contains(connection))
}

/// The first line with this in it.
fn line<'a>(screen: &'a str, text: &str) -> Option<&'a str> {
    screen.lines().find(|line| line.contains(text))
}

#[test]
fn weir_up_shows_what_moves_and_obeys_its_keys() {
    let Some(wire) = Wire::new("keys") else { return };
    let near = &wire.near;
    let terminal = Terminal::open(near, SIZE, &[]);
    let data = near.data().display();
    terminal.run(&format!(
        "{WEIR} up --activate-conntrack --interval 1s --cpu-budget 50% --data-dir {data}; echo \
         ended with $?"
    ));
    terminal.shows("weir top this machine");
    let _traffic = wire.traffic();
    let busiest_first = |screen: &str| {
        let place = |text| screen.find(text);
        shows_traffic(screen) && place(LONG[0]) < place(LONG[1]) && !screen.contains(" ? ")
    };
    let screen = terminal.wait("all connections, the busiest first", busiest_first);
    assert!(line(&screen, LONG[0]).unwrap().contains("ESTABLISHED"), "{screen}");
    assert!(screen.contains("sort rate") && screen.contains("Nodes (1)"), "{screen}");

    sorts_and_selects(&terminal);
    drills_and_details(&terminal);
    pauses(&terminal, near);

    terminal.key("h");
    terminal.shows("Help");
    terminal.key("Escape");
    terminal.hides("Help");
    terminal.key("q");
    let screen = terminal.shows("ended with 0");
    assert!(screen.contains("everything that was read is stored"), "{screen}");
    assert!(!terminal.is_alternate());
    assert!(near.stored() > 100_000, "{}", near.stored());
    assert!(!near.tables().contains("weir_tracking"));
}

fn sorts_and_selects(terminal: &Terminal) {
    // Up to the next sort that has another first connection, and back.
    terminal.key("s");
    terminal.hides("sort rate ");
    terminal.key("S");
    terminal.shows("sort rate ");
    terminal.key("t");
    terminal.shows("sort state");
    terminal.key("t");
    terminal.shows("sort rate ");

    // UDP has no state, and what is short is over soon.
    terminal.key("f");
    terminal.wait("established connections only", |screen| {
        screen.contains("state ESTABLISHED")
            && screen.contains(LONG[0])
            && !screen.contains(LONG[3])
    });
    terminal.key("f");
    terminal.wait("ended connections only", |screen| {
        screen.contains("10.77.0.4:8000") && !screen.contains(LONG[0])
    });
    terminal.key("f");
    terminal.wait("all again", shows_traffic);

    terminal.key("v");
    terminal.wait("IPv4 only", |screen| screen.contains(LONG[0]) && !screen.contains("fd77::2"));
    terminal.key("v");
    terminal.wait("IPv6 only", |screen| screen.contains(LONG[2]) && !screen.contains("10.77."));
    terminal.key("v");
    terminal.wait("both again", shows_traffic);

    let names = terminal.shows("python3");
    assert!(!names.contains("10.77.0.1:"), "this end has a name\n{names}");
    terminal.key("n");
    terminal.wait("addresses", |screen| {
        screen.contains("10.77.0.1:") && screen.contains("by source.address, destination.address")
    });
    terminal.key("n");
    terminal.hides("10.77.0.1:");
}

fn drills_and_details(terminal: &Terminal) {
    terminal.key("g");
    terminal.shows("by source.name, destination.name, destination.port");
    // Back from the connections to the talkers; the busiest is selected.
    terminal.key("Left");
    terminal.shows("[talkers]");
    terminal.key("Home");
    terminal.key("Enter");
    terminal.wait("the busiest talker's only connection", |screen| {
        screen.contains("[connections]") && screen.contains(LONG[0]) && !screen.contains(LONG[1])
    });
    terminal.key("Enter");
    terminal.wait("its details", |screen| {
        ["Details", "from python3", "state tcp ESTABLISHED", "port 8080"]
            .iter()
            .all(|text| screen.contains(text))
    });
    terminal.key("c");
    terminal.wait("all connections", shows_traffic);
    terminal.key("Enter");
    terminal.hides("Details");

    terminal.key("C");
    terminal.shows("[x] age");
    terminal.key("Escape");
    terminal.hides("[x] age");
    terminal.key("]");
    terminal.shows("since 1h");
    terminal.key("[");
    terminal.shows("since 10m");
}

/// While it is paused, weir reads on and the picture stays.
fn pauses(terminal: &Terminal, near: &machine::Machine) {
    terminal.key("Space");
    let paused = terminal.shows("PAUSED");
    let readings = || near.stored();
    let then = readings();
    until("weir goes on", || readings() > then);
    assert_eq!(terminal.screen(), paused);
    terminal.key("Space");
    terminal.wait("another picture", |screen| !screen.contains("PAUSED") && *screen != paused);
}

#[test]
fn a_filter_is_tried_while_it_is_typed() {
    let Some(wire) = Wire::new("filter") else { return };
    let _up = wire.near.up(&["--activate-conntrack"]);
    let _traffic = wire.traffic();
    let terminal = Terminal::open(&wire.near, SIZE, &[]);
    terminal.run(&format!("{WEIR} top"));
    terminal.shows("weir top http://127.0.0.1:8885");
    terminal.wait("all connections", shows_traffic);

    let only_one = |screen: &str| screen.contains(LONG[1]) && !screen.contains(LONG[0]);
    terminal.key("/");
    terminal.shows("filter:");
    terminal.text("port = 9090");
    terminal.wait("the filter works before Enter", only_one);
    terminal.key("Enter");
    terminal
        .wait("and after it", |screen| only_one(screen) && screen.contains("filter port = 9090"));

    // An error stands under its place, and the last good filter goes on.
    terminal.key("/");
    terminal.key("C-u");
    terminal.text("class = internet and protocoll = udp");
    let screen = terminal.shows("did you mean `protocol`?");
    let lines: Vec<&str> = screen.lines().collect();
    let typed = lines.iter().position(|line| line.starts_with("filter: ")).unwrap();
    let carets = "^".repeat("protocoll".len());
    assert_eq!(lines[typed].find("protocoll"), lines[typed + 1].find(&carets), "{screen}");
    let end = lines[typed].find("udp").unwrap() + "udp".len();
    assert_eq!(terminal.cursor(), (end, typed), "{screen}");
    terminal.key("Enter");
    terminal.shows("did you mean");
    terminal.key("Escape");
    terminal.wait("the filter of before", |screen| {
        only_one(screen) && screen.contains("filter port = 9090")
    });

    // Tab completes fields, operators and what the store knows.
    terminal.key("/");
    terminal.key("C-u");
    terminal.text("destination.por");
    terminal.key("Tab");
    terminal.shows("filter: destination.port");
    terminal.key("C-u");
    terminal.text("destination.address = 10.77.");
    terminal.key("Tab");
    terminal.shows("filter: destination.address = 10.77.0.");
    terminal.key("C-u");

    // A search word, and what it stands for.
    terminal.text("10.77.0.3");
    terminal.shows("searches address = 10.77.0.3");
    terminal.key("Enter");
    terminal.wait("that address", only_one);
    terminal.key("/");
    terminal.key("C-u");
    terminal.key("Enter");
    terminal.wait("all connections again", |screen| {
        shows_traffic(screen) && screen.contains("no filter")
    });
}

#[test]
fn every_size_is_drawn_and_a_storm_of_them_survived() {
    let Some(wire) = Wire::new("sizes") else { return };
    let up = wire.near.up(&["--activate-conntrack"]);
    let _traffic = wire.traffic();
    let terminal = Terminal::open(&wire.near, SIZE, &[]);
    terminal.run(&format!("{WEIR} top --filter 'not port = 8885'"));
    terminal.wait("all connections", shows_traffic);
    let program = terminal.program();

    terminal.resize(80, 24);
    terminal.wait("80x24", |screen| {
        screen.contains("Talkers") && screen.contains("[connections]") && screen.contains("8080")
    });
    terminal.resize(40, 12);
    terminal.wait("40x12", |screen| {
        screen.contains("DESTINATION") && screen.contains("8080") && !screen.contains("Nodes")
    });
    terminal.resize(20, 5);
    terminal.wait("20x5", |screen| screen.contains("10.77") && !screen.contains("Connections"));
    terminal.resize(19, 2);
    terminal.shows("too small");
    for step in 0..50_u16 {
        terminal.resize(10 + step * 37 % 150, 2 + step * 17 % 50);
    }
    terminal.resize(SIZE.0, SIZE.1);
    let whole = |screen: &str| shows_traffic(screen) && screen.contains("q quit");
    let screen = terminal.wait("the whole screen again", whole);
    assert!(screen.lines().next().unwrap().starts_with("weir top http"), "{screen}");
    assert_eq!(terminal.program(), program);

    drop(up);
    terminal.resize(80, 24);
    let screen = terminal.shows("weir does not answer");
    assert!(screen.contains("8080"), "the last picture stays\n{screen}");
}

#[test]
fn a_server_that_dies_is_said_and_found_again() {
    let Some(wire) = Wire::new("lost") else { return };
    let up = wire.near.up(&["--activate-conntrack"]);
    let _traffic = wire.traffic();
    let terminal = Terminal::open(&wire.near, SIZE, &[]);
    terminal.run(&format!("{WEIR} top"));
    terminal.wait("all connections", shows_traffic);

    // A handle that goes kills.
    drop(up);
    let screen = terminal.shows("weir does not answer");
    assert!(shows_traffic(&screen), "the last picture stays\n{screen}");

    let _up = wire.near.up(&["--activate-conntrack"]);
    terminal.wait("the server again", |screen| {
        !screen.contains("weir does not answer") && shows_traffic(screen)
    });
}

#[test]
fn whichever_way_it_ends_the_terminal_is_as_before() {
    let Some(wire) = Wire::new("leave") else { return };
    let near = &wire.near;
    let _up = near.up(&["--activate-conntrack"]);
    let terminal = Terminal::open(near, SIZE, &[]);
    let settings = |name: &str| near.path(name).display().to_string();
    let (before, after) = (settings("before"), settings("after"));
    for (index, way) in ["q", "C-c", "TERM", "HUP"].into_iter().enumerate() {
        terminal.run("clear; echo stood here before");
        terminal.run(&format!(
            "stty -a > {before}; {WEIR} top; echo ended {index} with $?; stty -a > {after}"
        ));
        terminal.shows("Connections (");
        assert!(terminal.is_alternate());
        match way {
            "q" | "C-c" => terminal.key(way),
            signal => {
                let program = terminal.program().to_string();
                let sent = Command::new("kill").args(["-s", signal, &program]).status();
                assert!(sent.unwrap().success());
            }
        }
        let screen = terminal.shows(&format!("ended {index} with 0"));
        assert!(screen.contains("stood here before"), "{way}\n{screen}");
        assert!(!screen.contains("Connections ("), "{way}\n{screen}");
        assert!(!terminal.is_alternate(), "{way}");
        until("the settings", || fs::metadata(&after).is_ok_and(|file| file.len() > 0));
        let [before, after] = [&before, &after].map(|path| fs::read_to_string(path).unwrap());
        assert_eq!(before, after, "{way}");
        terminal.run(&format!("rm {}", settings("after")));
    }

    // A terminal that goes takes its program with it.
    terminal.run(&format!("{WEIR} top"));
    terminal.shows("Connections (");
    let program = terminal.program();
    drop(terminal);
    until("weir top is gone", || fs::metadata(format!("/proc/{program}")).is_err());
}

#[test]
fn colours_and_unicode_only_where_they_are_wanted() {
    let Some(wire) = Wire::new("plain") else { return };
    let _up = wire.near.up(&["--activate-conntrack"]);
    let _traffic = wire.traffic();
    let is_coloured = |screen: &str| screen.contains("38;2;") || screen.contains("38:2:");
    {
        let terminal = Terminal::open(&wire.near, SIZE, &[]);
        terminal.run(&format!("{WEIR} top"));
        let screen = terminal.wait("all connections", shows_traffic);
        assert!(screen.contains('─') && screen.contains('→') | screen.contains('↑'), "{screen}");
        assert!(is_coloured(&terminal.coloured()));
    }
    let terminal = Terminal::open(&wire.near, SIZE, &[("NO_COLOR", "1"), ("LC_ALL", "C")]);
    terminal.run(&format!("{WEIR} top"));
    let screen = terminal.wait("all connections", shows_traffic);
    assert!(screen.is_ascii(), "{screen}");
    let screen = terminal.coloured();
    let is_colour = |code: &str| {
        let code: u32 = code.parse().unwrap_or(0);
        // 39 and 49 go back to the terminal's own.
        (30..50).contains(&code) && code % 10 != 9 || (90..108).contains(&code)
    };
    for sequence in screen.split("\x1b[").skip(1) {
        let codes = sequence.split('m').next().unwrap();
        assert!(!codes.split([';', ':']).any(is_colour), "{codes:?} in\n{screen}");
    }
}

#[test]
fn without_weir_up_it_reads_by_itself_and_leaves_nothing() {
    let Some(wire) = Wire::new("alone") else { return };
    let near = &wire.near;
    let terminal = Terminal::open(near, SIZE, &[]);
    terminal.run(&format!(
        "{WEIR} top --activate-conntrack --set-sysctls --interval 1s; echo ended with $?"
    ));
    terminal.shows("weir top this machine");
    let _traffic = wire.traffic();
    terminal.wait("all connections", shows_traffic);
    terminal.wait("totals", |screen| {
        line(screen, LONG[0]).is_some_and(|line| line.contains("KiB") || line.contains("MiB"))
    });
    assert!(near.tables().contains("weir_tracking"));
    let program = terminal.program();
    let leftovers = || {
        let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let prefix = format!("weir-top-{program}-");
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    assert_eq!(leftovers(), 1);
    terminal.key("q");
    terminal.shows("ended with 0");
    assert_eq!(leftovers(), 0);
    assert!(!near.tables().contains("weir_tracking"));
}
