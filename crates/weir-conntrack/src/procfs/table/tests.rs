use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::NamedTempFile;

use super::*;

const LIMITS: Limits = Limits { entries: 1000, copy_bytes: 1 << 20, slow: false };

fn line(number: u16) -> String {
    format!(
        "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport={number} dport=53 \
         packets=1 bytes=60 src=10.0.0.2 dst=10.0.0.1 sport=53 dport={number} packets=1 bytes=90 \
         mark=0 zone=0 use=2\n"
    )
}

fn file(text: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_ref()).unwrap();
    file
}

fn open(file: &NamedTempFile) -> Result<Table, ProcfsError> {
    Table::open(file.path(), LIMITS)
}

/// The source ports that a reading shows.
fn ports(table: &mut Table) -> Vec<u16> {
    let mut ports = Vec::new();
    table.start().unwrap();
    while table.next_chunk(|sample| ports.push(sample.original.source_port)).unwrap() {}
    ports
}

/// An error with its causes, and `FILE` for the file's path.
fn told(error: &ProcfsError, file: &Path) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default()).replace(&file.display().to_string(), "FILE")
}

#[test]
fn a_copy_is_read_whole_and_again() {
    // Several pieces, so that lines lie across their borders.
    let text: String = (1..=2000).map(line).collect();
    assert!(text.len() > 4 * PIECE_BYTES);
    let copy = file(&text);
    let mut table = open(&copy).unwrap();
    assert!(!table.was_empty());
    assert_eq!(ports(&mut table), (1..=2000).collect::<Vec<_>>());
    assert_eq!(ports(&mut table), (1..=2000).collect::<Vec<_>>());
    assert!(!table.next_chunk(|_| {}).unwrap(), "the end stays the end");
    // A reading that was given up leaves nothing behind.
    table.start().unwrap();
    assert!(table.next_chunk(|_| {}).unwrap());
    assert_eq!(ports(&mut table).len(), 2000);
    assert_eq!(table.malformed(), 0);
}

#[test]
fn lines_that_cannot_be_read_are_counted_and_passed_over() {
    let long = "x".repeat(3 * PIECE_BYTES);
    let cut = line(6);
    let text = [
        "\n  \n".to_owned(),
        line(1),
        "nonsense\n".to_owned(),
        line(2),
        format!("{long}\n"),
        line(3),
        line(4),
        line(5),
        cut[..cut.len() - 20].to_owned(),
    ];
    let copy = file(text.concat());
    let mut table = open(&copy).unwrap();
    assert_eq!(ports(&mut table), [1, 2, 3, 4, 5]);
    assert_eq!(table.malformed(), 3);
    ports(&mut table);
    assert_eq!(table.malformed(), 6);

    // Only the end of the last line is absent.
    let copy = file([line(1), line(2).trim_end().to_owned()].concat());
    assert_eq!(ports(&mut open(&copy).unwrap()), [1, 2]);
    // The last line is too long, and nothing ends it.
    let copy = file([line(1), long].concat());
    let mut table = open(&copy).unwrap();
    assert_eq!((ports(&mut table), table.malformed()), (vec![1], 1));
}

#[test]
fn what_is_no_conntrack_text_is_told() {
    let mut told_of = Vec::new();
    let mut refuse = |text: &[u8]| {
        let copy = file(text);
        told_of.push(told(&open(&copy).unwrap_err(), copy.path()));
    };
    refuse(b"");
    refuse(b"\n\n");
    refuse(b"\x7fELF\0\0");
    refuse(b"\n# a list\nof things\n");
    // It turns out at the hundredth line, not at the end.
    let mostly: String = (0..60).map(|_| "no\n".to_owned()).chain((0..5000).map(line)).collect();
    refuse(mostly.as_bytes());
    refuse(line(7).repeat(10_000).as_bytes());
    insta::assert_snapshot!(told_of.join("\n"));
}

#[test]
fn half_of_the_lines_suffice() {
    let mixed: String = (0..50).map(|_| "no\n".to_owned()).chain((0..50).map(line)).collect();
    let mut table = open(&file(mixed)).map_err(|error| error.to_string());
    assert!(table.is_ok(), "{table:?}");
    assert_eq!(table.as_mut().unwrap().malformed(), 0, "the opening does not count");
}

#[test]
fn a_copy_that_is_replaced_by_something_else_breaks_the_reading_off() {
    let copy = file(line(1));
    let mut table = open(&copy).unwrap();
    fs::write(copy.path(), "").unwrap();
    table.start().unwrap();
    let error = table.next_chunk(|_| {}).unwrap_err();
    assert!(matches!(error, ProcfsError::Empty { .. }), "{error:?}");
    fs::remove_file(copy.path()).unwrap();
    let error = table.start().unwrap_err();
    assert!(matches!(error, ProcfsError::Absent { .. }), "{error:?}");
    assert!(!table.next_chunk(|_| {}).unwrap());
    fs::write(copy.path(), line(2)).unwrap();
    assert_eq!(ports(&mut table), [2]);
}

#[test]
fn what_is_no_file_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let error = Table::open(at, LIMITS).unwrap_err();
    assert_eq!(
        told(&error, at),
        "FILE is a directory: name the file in it, such as FILE/nf_conntrack"
    );
    let device = Path::new("/dev/null");
    let error = Table::open(device, LIMITS).unwrap_err();
    assert_eq!(
        told(&error, device),
        "FILE is neither a file of /proc nor a regular file: copy its text to a file and name that"
    );
    let loops = at.join("loop");
    std::os::unix::fs::symlink(&loops, &loops).unwrap();
    let error = Table::open(&loops, LIMITS).unwrap_err();
    assert!(told(&error, &loops).starts_with("cannot read FILE: "), "{error}");
}

#[test]
fn a_file_that_may_not_be_read_says_who_may() {
    let denied = ProcfsError::Unreadable {
        path: "FILE".into(),
        source: io::Error::from_raw_os_error(libc::EACCES),
    };
    insta::assert_snapshot!(
        told(&denied, Path::new("FILE")),
        @"cannot read FILE: run as a user who may read it, such as root, or grant CAP_DAC_READ_SEARCH: Permission denied (os error 13)"
    );
    let copy = file(line(1));
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o0)).unwrap();
    match open(&copy) {
        // Root reads everything.
        Ok(mut table) => assert_eq!(ports(&mut table), [1]),
        Err(error) => assert!(matches!(error, ProcfsError::Unreadable { .. }), "{error:?}"),
    }
}

#[test]
fn a_table_that_is_too_large_names_the_way_out() {
    let told = |entries, slow| {
        let limits = Limits { slow, ..LIMITS };
        large(Path::new("/proc/net/nf_conntrack"), entries, limits).to_string()
    };
    insta::assert_snapshot!([told(1001, false), told(70_000, true)].join("\n"));
}
