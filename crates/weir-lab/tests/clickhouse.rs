//! The stand-in for ClickHouse's server, and the faults before it, as tests rely on them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use weir_lab::clickhouse::{Engine, Fault, Faults, READER, VIEWER};

/// Sends a request whole and reads the answer to its end.
fn ask(url: &str, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let head =
        format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    // A connection that was cut ends with an error or with nothing.
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status, body.unwrap_or_default())
}

fn numbers(numbers: std::ops::Range<u64>) -> Vec<u8> {
    numbers.flat_map(u64::to_le_bytes).collect()
}

#[test]
fn statements_parameters_settings_and_users_are_understood() {
    let Some(engine) = Engine::for_test("the stand-in for ClickHouse").unwrap() else { return };
    if engine.is_server() {
        return;
    }
    let url = engine.url();
    assert_eq!(
        ask(url, "POST /?max_threads=1 HTTP/1.1", b"SELECT getSetting('max_threads')").1,
        "1\n"
    );
    // A setting lasts no longer than its statement, whichever session the next one gets.
    for _ in 0..16 {
        let (_, threads) = ask(url, "POST / HTTP/1.1", b"SELECT getSetting('max_threads') = 1");
        assert_eq!(threads, "0\n");
    }
    let names = ["it's", "a\\tb", "a\\0b", "back\\\\slash", "\"", "é€😀", "{p:String}", "--x\\n;"];
    for (escaped, name) in names.into_iter().zip([
        "it's",
        "a\tb",
        "a\0b",
        "back\\slash",
        "\"",
        "é€😀",
        "{p:String}",
        "--x\n;",
    ]) {
        let body = format!(
            "--X\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n\
             SELECT hex({{p:String}})\r\n--X\r\nContent-Disposition: form-data; name=\"param_p\"\r\n\r\n\
             {escaped}\r\n--X--\r\n"
        );
        let head = "POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=X";
        let hex = name.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02X}").unwrap();
            hex
        });
        assert_eq!(ask(url, head, body.as_bytes()), (200, hex + "\n"), "{name:?}");
    }
    let (status, text) = ask(url, "POST / HTTP/1.1", b"SELECT * FROM nowhere");
    assert!(status == 404 && text.starts_with("Code: 60. DB::Exception: "), "{status} {text}");
    let (status, text) = ask(url, "POST /?user=weir&password=wrong HTTP/1.1", b"SELECT 1");
    assert!(status == 403 && text.starts_with("Code: 516. "), "{status} {text}");
    for ((user, password), setting) in [(READER, 500), (VIEWER, 200)] {
        let head = format!("X-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {password}");
        let (_, text) = ask(url, &format!("POST / HTTP/1.1\r\n{head}"), b"CREATE DATABASE no");
        assert!(text.starts_with("Code: 164. "), "{text}");
        let with = format!("POST /?max_threads=1 HTTP/1.1\r\n{head}");
        assert_eq!(ask(url, &with, b"SELECT 1").0, setting);
    }
}

#[test]
fn an_insert_is_one_block_and_its_token_counts() {
    let Some(engine) = Engine::for_test("one insert, one block").unwrap() else { return };
    let database = engine.database().unwrap();
    database
        .run(
            "CREATE TABLE a (k UInt64) ENGINE = MergeTree ORDER BY k \
             SETTINGS non_replicated_deduplication_window = 10",
        )
        .unwrap();
    let insert = |token: &str, body: &[u8]| {
        let head = format!(
            "POST /?database={}&insert_deduplication_token={token}&max_insert_block_size=1048576\
             &query=INSERT+INTO+a+FORMAT+RowBinary HTTP/1.1",
            database.name()
        );
        ask(engine.url(), &head, body)
    };
    for _ in 0..2 {
        assert_eq!(insert("one", &numbers(0..300_000)), (200, String::new()));
    }
    assert_eq!(database.run("SELECT count() FROM a").unwrap(), "300000\n");
    let parts =
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'a'";
    assert_eq!(database.run(parts).unwrap(), "1\n");
    assert_eq!(insert("two", &numbers(0..1)).0, 200);
    assert_eq!(database.run("SELECT count() FROM a").unwrap(), "300001\n");

    // What a view says is the insert's answer.
    database.run("CREATE TABLE b (n UInt8) ENGINE = MergeTree ORDER BY n").unwrap();
    database.run("CREATE MATERIALIZED VIEW v TO b AS SELECT throwIf(k = 1) AS n FROM a").unwrap();
    let (status, said) = insert("three", &numbers(1..2));
    assert!(status == 500 && said.starts_with("Code: 395. "), "{status} {said}");
    database.run("DROP TABLE v").unwrap();
    assert_eq!(insert("three", &numbers(1..2)).0, 200);
    database.run("ALTER TABLE a DELETE WHERE k = 1 SETTINGS mutations_sync = 2").unwrap();
    assert_eq!(database.run("SELECT count() FROM a").unwrap(), "300000\n");

    // A body that breaks off leaves nothing behind.
    let mut stream = TcpStream::connect(engine.url().trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST /?database={}&query=INSERT+INTO+a+FORMAT+RowBinary HTTP/1.1\r\nHost: x\r\n\
         Transfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n",
        database.name()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    assert_eq!(database.run("SELECT count() FROM a").unwrap(), "300000\n");
}

#[test]
fn a_killed_engine_comes_back_with_what_it_had() {
    let Some(mut engine) = Engine::own_for_test("a killed engine").unwrap() else { return };
    let database = engine.database().unwrap();
    database.run("CREATE TABLE a (k UInt64) ENGINE = MergeTree ORDER BY k").unwrap();
    database.run("INSERT INTO a SELECT number FROM numbers(5)").unwrap();
    let url = engine.url().to_owned();
    engine.kill().unwrap();
    database.run("SELECT 1").unwrap_err();
    engine.restart().unwrap();
    assert_eq!(engine.url(), url);
    assert_eq!(database.run("SELECT sum(k) FROM a").unwrap(), "10\n");
    assert!(engine.cost().unwrap().engine_cpu_seconds > 0.0);
}

#[test]
fn faults_are_what_they_say() {
    let Some(engine) = Engine::for_test("faults").unwrap() else { return };
    let database = engine.database().unwrap();
    database.run("CREATE TABLE a (k UInt64) ENGINE = MergeTree ORDER BY k").unwrap();
    let faults = Faults::before(&engine).unwrap();
    let insert = || {
        let head = format!("POST /?database={} HTTP/1.1", database.name());
        ask(faults.url(), &head, b"INSERT INTO a VALUES (1)")
    };
    let stored = || database.run("SELECT count() FROM a").unwrap();
    assert_eq!(insert().0, 200);
    assert_eq!(stored(), "1\n");

    faults.add("INSERT INTO a", Fault::CutBefore, 1);
    assert_eq!(insert(), (0, String::new()));
    assert_eq!(stored(), "1\n");
    faults.add("INSERT INTO a", Fault::CutAfter, 1);
    assert_eq!(insert(), (0, String::new()));
    assert_eq!(stored(), "2\n");
    faults.add("INSERT INTO a", Fault::CutDuring, 1);
    assert_eq!(insert(), (0, String::new()));
    assert_eq!(stored(), "2\n");
    let fault = Fault::Answer { status: 500, code: 252, text: "Too many parts".into() };
    faults.add("INSERT INTO a", fault, 1);
    assert_eq!(insert(), (500, "Code: 252. DB::Exception: Too many parts\n".into()));

    faults.add("INSERT INTO a", Fault::Hold, 1);
    let before = faults.seen("INSERT INTO a");
    std::thread::scope(|scope| {
        let held = scope.spawn(insert);
        assert!(faults.wait_for("INSERT INTO a", before + 1, Duration::from_mins(1)));
        faults.clear();
        assert_eq!(held.join().unwrap().0, 200);
    });
    assert_eq!(stored(), "3\n");
    faults.go_away();
    assert_eq!(insert(), (0, String::new()));
    faults.clear();
    assert_eq!(insert().0, 200);
}
