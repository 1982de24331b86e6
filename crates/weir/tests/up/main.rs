//! `weir up` as a process, against the real kernel, each test in a network namespace of its own.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::panic, reason = "a test that waited in vain should say for what")]

mod machine;

use std::fs;
use std::process::Stdio;

use self::machine::{Machine, Up, until};

fn reasons(machine: &Machine) -> Vec<String> {
    let status = machine.status();
    let gaps = status["gaps"].as_array().unwrap();
    gaps.iter().map(|gap| gap["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_second_weir_on_the_same_data_is_told_whose_it_is() {
    let Some(machine) = Machine::new("second") else { return };
    let first = machine.up(&["--activate-conntrack"]);
    let pid = first.pid();
    let output = machine.weir(&["up", "--data-dir"]).arg(machine.data()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {pid}")) && said.contains("stop it first"), "{said}");
    assert_eq!(machine.node()["state"], "reading", "the first one goes on");
    first.stop();
}

#[test]
fn sigterm_ends_it_cleanly_and_the_machine_is_as_before() {
    let Some(machine) = Machine::new("term") else { return };
    let up = machine.up(&["--activate-conntrack"]);
    assert!(machine.tables().contains("weir_tracking"));
    machine.carry(5, 1_000);
    let said = up.stop();
    assert!(said.contains("everything that was read is stored"), "{said}");
    assert!(!machine.tables().contains("weir_tracking"));
    let node = machine.node();
    assert_eq!(node["state"], "stopped");
    assert_eq!(node["reason"], serde_json::Value::Null, "it said so itself");
    assert!(machine.stored() >= 5_000, "{}", machine.stored());
}

#[test]
fn five_kills_under_traffic_lose_no_byte_and_count_none_twice() {
    let Some(machine) = Machine::new("kills") else { return };
    // The table outlives the killed; entries last longer than the test.
    let up = machine.up(&["--activate-conntrack"]);
    machine.keep_entries();
    // What was there before the baseline: nothing. So the table's own counters are the truth.
    machine.carry(3, 500);
    until("it is stored", || machine.stored() > 0);
    let mut up = Some(up);
    for _ in 0..5 {
        up.take().unwrap().kill_while(|| machine.carry(20, 700));
        machine.carry(5, 300);
        up = Some(machine.up(&["--activate-conntrack"]));
        machine.carry(5, 300);
    }
    let said = up.take().unwrap().stop();
    assert!(said.contains("adopted"), "the table of the killed run: {said}");
    let truth = machine.counted_by_the_kernel();
    assert_eq!(machine.stored(), truth, "{}", machine.status());
    assert!(truth > 100_000, "{truth}");
    assert_eq!(reasons(&machine).iter().filter(|reason| *reason == "agent_down").count(), 5);
}

#[test]
fn a_table_that_somebody_removes_is_restored_and_the_time_declared() {
    let Some(machine) = Machine::new("removed") else { return };
    let up = machine.up(&["--activate-conntrack"]);
    machine.run("nft", &["delete", "table", "inet", "weir_tracking"]);
    until("the table", || machine.tables().contains("weir_tracking"));
    until("the gap", || reasons(&machine).contains(&"tracking_off".to_owned()));
    let said = up.stop();
    assert!(said.contains("was removed by somebody: restoring it"), "{said}");
    assert!(!machine.tables().contains("weir_tracking"));
}

#[test]
fn where_nothing_is_tracked_it_says_so_and_how_to_change_that() {
    let Some(machine) = Machine::new("idle") else { return };
    let said = machine.up(&[]).stop();
    assert!(said.contains("conntrack is idle here"), "{said}");
    assert!(said.contains("weir up --activate-conntrack"), "{said}");
    assert!(!machine.tables().contains("weir_tracking"));
}

#[test]
fn data_that_cannot_be_used_is_named_and_left_alone() {
    let Some(machine) = Machine::new("data") else { return };
    let file = machine.path("file");
    fs::write(&file, "mine").unwrap();
    let said = machine.fails(&file);
    assert!(said.contains("is not a directory"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");

    // A damaged database.
    let directory = machine.path("damaged");
    fs::create_dir(&directory).unwrap();
    let database = directory.join("flows.db");
    let garbage: Vec<u8> = (0..20_000_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
    fs::write(&database, &garbage).unwrap();
    let said = machine.fails(&directory);
    assert!(said.contains("flows.db is damaged") && said.contains("nothing was deleted"), "{said}");
    assert_eq!(fs::read(&database).unwrap(), garbage);

    // A disk that cannot be written.
    let disk = machine.disk(64);
    machine.run("mount", &["-o", "remount,ro", disk.to_str().unwrap()]);
    let said = machine.fails(&disk.join("weir"));
    assert!(said.contains("Read-only file system") || said.contains("read-only"), "{said}");
    assert!(!machine.tables().contains("weir_tracking"), "a failed start leaves nothing behind");
}

#[test]
fn a_damaged_spool_stops_the_start_and_leaves_the_machine_as_it_was() {
    let Some(machine) = Machine::new("spool") else { return };
    machine.up(&["--activate-conntrack"]).stop();
    let checkpoint = machine.data().join("spool/checkpoint");
    let good = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &good[..good.len() - 1]).unwrap();
    let said = machine.fails(machine.data());
    assert!(
        said.contains("checkpoint is damaged") && said.contains("move the directory"),
        "{said}"
    );
    assert!(!machine.tables().contains("weir_tracking"), "{}", machine.tables());
    assert_eq!(machine.node()["state"], "stopped");
    fs::write(&checkpoint, good).unwrap();
    machine.up(&[]).stop();
}

#[test]
fn a_damaged_batch_is_passed_over_and_shown_as_a_gap() {
    let Some(machine) = Machine::new("frame") else { return };
    let up = machine.up(&["--activate-conntrack"]);
    machine.carry(3, 500);
    up.stop();
    let before = machine.stored();
    // A batch behind the checkpoint that a bad disk has changed.
    let frame = machine.data().join(format!("spool/frames/{:020}", 500));
    fs::write(frame, b"WEIRBAT\x01nonsense").unwrap();
    let up = machine.up(&["--activate-conntrack"]);
    until("the gap", || reasons(&machine).contains(&"spool_damaged".to_owned()));
    up.stop();
    assert!(machine.stored() >= before);
    assert_eq!(fs::read_dir(machine.data().join("spool/quarantine")).unwrap().count(), 1);
}

#[test]
fn without_the_capability_it_shows_what_it_may() {
    let Some(machine) = Machine::new("nocap") else { return };
    let mut command = machine.command("setpriv", &["--bounding-set", "-net_admin"]);
    command.args(["--inh-caps", "-net_admin", env!("CARGO_BIN_EXE_weir"), "up", "--plain"]);
    command.args(["--interval", "1s", "--data-dir"]).arg(machine.data());
    let up = Up::start(command, &machine.path("nocap.log"));
    until("a picture", || up.said().contains("limited:"));
    assert!(up.said().contains("nothing is stored"), "{}", up.said());
    up.stop();
    assert!(!machine.data().exists(), "nothing was made");
}

#[test]
fn a_full_disk_is_said_and_outlived() {
    let Some(mut machine) = Machine::new("full") else { return };
    let disk = machine.disk(2_048);
    machine.set_data(disk.join("weir"));
    let up = machine.up(&["--activate-conntrack"]);
    machine.keep_entries();
    machine.carry(3, 500);
    until("it is stored", || machine.stored() > 0);
    let filler = disk.join("filler");
    let fill = format!("cat /dev/zero > {} || true", filler.display());
    let mut command = machine.command("sh", &["-c", &fill]);
    command.stderr(Stdio::null()).status().unwrap();
    machine.carry(20, 700);
    until("the reason", || {
        let waits = machine.node()["delivery_waits"].to_string().to_lowercase();
        waits.contains("no space left")
    });
    assert!(up.is_running());
    machine.carry(5, 100);
    fs::remove_file(filler).unwrap();
    until("it recovers", || machine.node()["delivery_waits"].is_null());
    up.stop();
    assert_eq!(machine.stored(), machine.counted_by_the_kernel(), "{}", machine.status());
}
