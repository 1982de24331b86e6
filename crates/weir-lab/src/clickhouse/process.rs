//! The engine's process.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{READER, USER, VIEWER, http};
use crate::LabError;
use crate::error::io_error;

const SCRIPT: &str = include_str!("../../clickhouse/engine.py");

/// Names the Python that has chdb.
const PYTHON: &str = "WEIR_LAB_CLICKHOUSE_PYTHON";
/// Where `scripts/clickhouse.sh` installs it, below the directory of builds.
const INSTALLED: &str = "tools-clickhouse/bin/python";
/// How long a shared engine waits for the next test, seconds.
const IDLE_SECONDS: u32 = 300;

/// What the engine says when it is ready.
#[derive(serde::Deserialize)]
struct Ready {
    port: u16,
    pid: u32,
}

/// An engine of one's own.
#[derive(Debug)]
pub(super) struct Process {
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
}

impl Process {
    pub(super) fn start() -> Result<Self, LabError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-clickhouse-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        make(&directory)?;
        let mut process = Self { child: None, port: 0, directory };
        process.restart()?;
        Ok(process)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn restart(&mut self) -> Result<(), LabError> {
        self.kill()?;
        let mut command = command(&self.directory)?;
        command.args(["--port", &self.port.to_string(), "--until-stdin-closes"]);
        command.stdin(Stdio::piped());
        let (child, ready) = begin(command, &self.directory)?;
        self.child = Some(child);
        self.port = ready.port;
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<(), LabError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().map_err(io_error("kill", "the engine"))?;
        child.wait().map_err(io_error("wait for", "the engine"))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What it stored goes away with it, so nothing is lost by a kill.
        drop(self.kill());
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// The address of the engine that everybody shares; starts it where it does not run.
pub(super) fn shared() -> Result<String, LabError> {
    let mut hasher = DefaultHasher::new();
    SCRIPT.hash(&mut hasher);
    // A changed script gets an engine of its own; the other one ends when it is idle.
    let name = format!("weir-clickhouse-shared-{}-{:016x}", user(), hasher.finish());
    let directory = std::env::temp_dir().join(name);
    make(&directory)?;
    let lock = directory.join("lock");
    let shown = lock.display().to_string();
    let file = File::create(&lock).map_err(io_error("create", &shown))?;
    file.lock().map_err(io_error("lock", &shown))?;

    let ready_file = directory.join("ready.json");
    if let Some(url) = running(&ready_file) {
        return Ok(url);
    }
    // Whoever began it last was killed.
    drop(fs::remove_dir_all(directory.join("data")));
    let mut command = command(&directory)?;
    command.args(["--remove", "--idle", &IDLE_SECONDS.to_string(), "--ready"]).arg(&ready_file);
    command.stdin(Stdio::null());
    // It outlives this test, and is not meant by its Ctrl-C.
    command.process_group(0);
    let (_child, ready) = begin(command, &directory)?;
    Ok(format!("http://127.0.0.1:{}", ready.port))
}

/// The address of the engine whose ready file this is, if it answers.
fn running(ready_file: &Path) -> Option<String> {
    let ready: Ready = serde_json::from_slice(&fs::read(ready_file).ok()?).ok()?;
    let url = format!("http://127.0.0.1:{}", ready.port);
    let figures = http::get(&format!("{url}/engine")).ok()?;
    let figures: serde_json::Value = serde_json::from_str(&figures).ok()?;
    (figures.get("pid")?.as_u64()? == u64::from(ready.pid)).then_some(url)
}

/// The user's number, so that two users share nothing.
fn user() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid())
}

fn make(directory: &Path) -> Result<(), LabError> {
    let shown = directory.display().to_string();
    fs::create_dir_all(directory).map_err(io_error("create", &shown))
}

/// The engine's command line, up to what differs.
fn command(directory: &Path) -> Result<Command, LabError> {
    let python = python()?;
    let script = directory.join("engine.py");
    let shown = script.display().to_string();
    fs::write(&script, SCRIPT).map_err(io_error("write", &shown))?;
    let log = directory.join("engine.log");
    let shown = log.display().to_string();
    let log = File::create(&log).map_err(io_error("create", &shown))?;
    let mut command = Command::new(python);
    command.arg(script).arg("--data").arg(directory.join("data"));
    command.args(["--user", "default:"]);
    for ((user, password), read_only) in [(USER, 0), (READER, 1), (VIEWER, 2)] {
        command.args(["--user", &format!("{user}:{password}:{read_only}")]);
    }
    command.stdout(Stdio::piped()).stderr(log);
    Ok(command)
}

/// Starts it and waits until it answers.
fn begin(mut command: Command, directory: &Path) -> Result<(Child, Ready), LabError> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(io_error("run", &shown))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let read = BufReader::new(output).read_line(&mut line);
        read.map_err(io_error("read from", &shown))?;
    }
    if let Ok(ready) = serde_json::from_str(&line) {
        return Ok((child, ready));
    }
    // It has ended or will not be of any use.
    drop(child.kill());
    drop(child.wait());
    let said = fs::read_to_string(directory.join("engine.log")).unwrap_or_default();
    let last = said.lines().last().unwrap_or("nothing").to_owned();
    let message = format!("it did not start; its last words: {last}");
    Err(LabError::Answer { program: "ClickHouse's engine".to_owned(), message })
}

/// The Python that has chdb.
fn python() -> Result<PathBuf, LabError> {
    if let Some(named) = std::env::var_os(PYTHON).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let below = std::env::current_exe().ok();
    let below = below.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let mut places = target.into_iter().chain(below).chain([workspace]);
    let found = places.find_map(|place| Some(place.join(INSTALLED)).filter(|path| path.exists()));
    found.ok_or_else(|| LabError::Answer {
        program: "ClickHouse's engine".to_owned(),
        message: format!(
            "it is not installed: run scripts/clickhouse.sh (about 920 MB on disk), or name a \
             Python that has chdb in {PYTHON}"
        ),
    })
}
