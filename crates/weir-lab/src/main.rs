//! `weir-lab`: a cluster in a box, to check weir against the truth.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use weir_lab::net::{self, Lab};
use weir_lab::scenario::{Action, ActionKind, Scenario, Store};
use weir_lab::simulation::{Break, Deeds};
use weir_lab::traffic::TrafficReport;
use weir_lab::verify::{self, Options};
use weir_lab::{LabError, cluster, compare, fill, simulation, traffic, truth, weir};

/// A cluster in a box: namespaces, traffic and the truth to check weir against.
///
/// Needs root. Makes network namespaces called weirlab-*, sends nothing beyond them, and removes
/// them at the end.
#[derive(Parser)]
#[command(name = "weir-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario with weir in it and compare what weir says with the truth.
    ///
    /// Exits with 0 when every flow agrees to the byte (or differs within what weir declares), with
    /// 1 when it does not or weir fails, and with 2 when the scenario or this machine cannot be
    /// used.
    Verify(Verify),
    /// Show weir on a cluster: a shop on three nodes, with an agent on each and a server.
    ///
    /// Traffic goes on until Ctrl-C (or the end of `weir top`); then everything is removed.
    Demo(Demo),
    /// Build a scenario's box and leave it standing until Ctrl-C.
    Up {
        /// The scenario file.
        scenario: PathBuf,
    },
    /// Remove what crashed runs left behind.
    Clean,
    /// Insert made-up entries into the conntrack table of the current network namespace.
    Fill {
        /// How many.
        #[arg(long)]
        entries: u32,
        /// The number of the first; each number is another tuple.
        #[arg(long, default_value_t = 0)]
        first: u32,
    },
    /// Delete every entry of the current network namespace's conntrack table.
    Flush,
    /// Drive ledger, sealing and ingest through random kernels, kills and re-deliveries.
    ///
    /// Checks that each byte is committed once or declared. Exits with 1 at the first seed that
    /// violates it, and names the seed. Needs no root.
    Simulate(Simulate),
    /// Answer traffic (started by the lab itself).
    #[command(name = traffic::SINK, hide = true)]
    Sink,
    /// Make traffic (started by the lab itself).
    #[command(name = traffic::SOURCE, hide = true)]
    Source,
}

#[derive(Args)]
struct Verify {
    /// The scenario file.
    scenario: PathBuf,
    /// How long traffic lasts, such as 60s; starts and actions keep their place in it [default:
    /// what the scenario says].
    #[arg(long, value_parser = time)]
    duration: Option<Duration>,
    /// Do this to weir in the middle of the run.
    #[arg(long)]
    fault: Option<Fault>,
    /// Where the servers of a cluster keep what they know [default: what the scenario says, else
    /// sqlite]. ClickHouse is the engine that `scripts/clickhouse.sh` installs, or the server that
    /// `WEIR_TEST_CLICKHOUSE_URL` names.
    #[arg(long)]
    store: Option<StoreName>,
    /// How many servers, over which agents are spread; more than one need ClickHouse [default: what
    /// the scenario says, else 1].
    #[arg(long)]
    servers: Option<usize>,
    /// The weir to test [default: the one beside this program, else the one on the path].
    #[arg(long, conflicts_with = "without_weir")]
    weir: Option<PathBuf>,
    /// Leave weir out: hold the truth against the generators only.
    #[arg(long)]
    without_weir: bool,
    /// How often weir reads the kernel, in whole seconds.
    #[arg(long, default_value = "2s", value_parser = time)]
    interval: Duration,
    /// How to print the result.
    #[arg(short, long, default_value = "table")]
    output: Output,
    /// Keep weir's data and log, and say where they are.
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
struct Demo {
    /// The scenario file, of a cluster [default: the shop that comes with the lab].
    scenario: Option<PathBuf>,
    /// The weir to show; its agent is the one beside it.
    #[arg(long)]
    weir: Option<PathBuf>,
    /// Do not open `weir top`, even on a terminal.
    #[arg(long)]
    no_top: bool,
    /// How often weir reads the kernel, in whole seconds.
    #[arg(long, default_value = "2s", value_parser = time)]
    interval: Duration,
}

#[derive(Args)]
struct Simulate {
    /// How many seeds.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Break a rule on purpose, to see that the simulator notices.
    #[arg(long = "break")]
    broken: Option<Broken>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Broken {
    /// Judge what is gone before the events are drained.
    TickOrder,
    /// Keep the ledger's state apart from the log of frames.
    OneLog,
    /// Leave the start out of a connection's identity.
    Identity,
}

#[derive(Clone, Copy, ValueEnum)]
enum Fault {
    /// `kill -9` weir, and start it again after 1.5 seconds.
    KillAgent,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreName {
    Sqlite,
    Clickhouse,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            drop(writeln!(io::stderr(), "weir-lab: {error:#}"));
            match error.downcast_ref() {
                Some(LabError::Weir(_)) => ExitCode::from(1),
                _ => ExitCode::from(2),
            }
        }
    }
}

fn simulate(arguments: &Simulate) -> Result<ExitCode> {
    let Simulate { seeds, first, broken } = *arguments;
    let broken = broken.map(|broken| match broken {
        Broken::TickOrder => Break::TickOrder,
        Broken::OneLog => Break::OneLog,
        Broken::Identity => Break::Identity,
    });
    let mut all = Deeds::default();
    for seed in first..first.saturating_add(seeds) {
        match simulation::run(seed, broken) {
            Ok(deeds) => all.add(deeds),
            Err(violation) => {
                writeln!(io::stdout(), "seed {seed}: {violation}")?;
                return Ok(ExitCode::from(1));
            }
        }
    }
    writeln!(io::stdout(), "{seeds} seeds clean: {all:?}")?;
    Ok(ExitCode::SUCCESS)
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Verify(arguments) => return verify(arguments),
        Command::Demo(arguments) => demo(&arguments)?,
        Command::Up { scenario } => up(&scenario)?,
        Command::Clean => {
            for space in net::clean()? {
                writeln!(io::stdout(), "removed {space}")?;
            }
        }
        Command::Fill { entries, first } => fill::fill(first, entries)?,
        Command::Flush => fill::flush()?,
        Command::Simulate(arguments) => return simulate(&arguments),
        Command::Sink => {
            let plan = read_plan()?;
            let report = traffic::run_sink(&plan, io::stdin().lock(), io::stdout())?;
            writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
        }
        Command::Source => {
            let report = traffic::run_source(&read_plan()?)?;
            writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A generator's plan is the first line of its input.
fn read_plan<T: serde::de::DeserializeOwned>() -> Result<T> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("cannot read the plan")?;
    serde_json::from_str(&line).context("cannot read the plan")
}

fn verify(arguments: Verify) -> Result<ExitCode> {
    let Verify {
        scenario,
        duration,
        fault,
        store,
        servers,
        weir,
        without_weir,
        interval,
        output,
        keep,
    } = arguments;
    let (mut scenario, ports) = Scenario::read(&scenario)?;
    set_up(&mut scenario, store, servers)?;
    if let Some(duration) = duration {
        if duration < Duration::from_secs(1) {
            bail!("--duration must be at least 1s");
        }
        scenario.stretch(duration);
    }
    if interval < Duration::from_secs(1) || interval.subsec_nanos() > 0 {
        bail!("--interval must be whole seconds, at least one");
    }
    let kills = |action: &Action| matches!(action.kind, ActionKind::KillAgent(..));
    if let Some(Fault::KillAgent) = fault
        && !scenario.actions.iter().any(kills)
    {
        let kind = ActionKind::KillAgent(0, Duration::from_millis(1_500));
        scenario.actions.push(Action { at: scenario.duration / 2, kind });
        scenario.actions.sort_by_key(|action| action.at);
    }
    let data = verify::temporary_data("weir-lab");
    let options = Options {
        program: std::env::current_exe().context("cannot find this program's own file")?,
        weir: if without_weir { None } else { Some(weir::find(weir.as_deref())?) },
        interval,
        data: data.clone(),
        keep,
    };
    let stop = stop_on_signals()?;
    let good = if scenario.is_cluster() {
        let outcome = cluster::verify(&scenario, &ports, &options, &stop)?;
        show(&outcome, &cluster::table(&outcome), &outcome.traffic, output)?;
        outcome.is_good()
    } else {
        let outcome = verify::verify(&scenario, &ports, &options, &stop)?;
        show(&outcome, &compare::table(&outcome.comparison), &outcome.traffic, output)?;
        !outcome.weir || outcome.comparison.is_good()
    };
    if keep && !without_weir {
        writeln!(io::stderr(), "weir's data is in {}", data.display())?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What was typed wins over what the scenario says.
fn set_up(scenario: &mut Scenario, store: Option<StoreName>, servers: Option<usize>) -> Result<()> {
    let setup = &mut scenario.setup;
    setup.store = match store {
        Some(StoreName::Sqlite) => Store::Sqlite,
        Some(StoreName::Clickhouse) => Store::Clickhouse,
        None => setup.store,
    };
    setup.servers = servers.unwrap_or(setup.servers);
    if let Some(problem) = scenario.setup.problem(scenario.is_cluster()) {
        bail!("{problem}");
    }
    let needs_engine = scenario.actions.iter().any(|action| action.kind.needs_engine());
    if needs_engine && scenario.setup.store != Store::Clickhouse {
        bail!("the scenario does things to ClickHouse: leave --store out");
    }
    let races = |action: &Action| matches!(action.kind, ActionKind::RaceServers(_));
    if scenario.actions.iter().any(races) && scenario.setup.servers < 2 {
        bail!("the scenario lets two servers race: leave --servers out");
    }
    Ok(())
}

fn demo(arguments: &Demo) -> Result<()> {
    let Demo { scenario, weir, no_top, interval } = arguments;
    let (scenario, ports) = match scenario {
        Some(path) => Scenario::read(path)?,
        None => Scenario::parse(include_str!("../scenarios/demo.toml"), "demo.toml")?,
    };
    if !scenario.is_cluster() {
        bail!("the demo needs a scenario with several [[node]]; `weir-lab up` shows a single one");
    }
    let options = Options {
        program: std::env::current_exe().context("cannot find this program's own file")?,
        weir: Some(weir::find(weir.as_deref())?),
        interval: *interval,
        data: verify::temporary_data("weir-demo"),
        keep: false,
    };
    let stop = stop_on_signals()?;
    let screen = !no_top && io::stdin().is_terminal() && io::stdout().is_terminal();
    cluster::demo::run(&scenario, &ports, &options, screen, io::stdout(), &stop)?;
    Ok(())
}

fn show(
    outcome: &impl Serialize,
    text: &str,
    traffic: &TrafficReport,
    output: Output,
) -> Result<()> {
    let mut stdout = io::stdout().lock();
    if output == Output::Json {
        return Ok(writeln!(stdout, "{}", serde_json::to_string_pretty(outcome)?)?);
    }
    write!(stdout, "{text}")?;
    let mut sums: BTreeMap<_, [u64; 5]> = BTreeMap::new();
    for source in &traffic.sources {
        let sum = sums.entry(source.protocol).or_default();
        let parts = [
            source.attempted,
            source.established,
            source.failed,
            source.payload_sent,
            source.payload_received,
        ];
        sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        for error in &source.errors {
            writeln!(stdout, "traffic: {} > {}: {error}", source.source, source.target)?;
        }
    }
    for (protocol, [attempted, established, failed, sent, received]) in sums {
        writeln!(
            stdout,
            "traffic: {protocol:?}: {attempted} connections, {established} answered, {failed} \
             failed; payload {sent} bytes sent, {received} received"
        )?;
    }
    Ok(())
}

fn up(path: &std::path::Path) -> Result<()> {
    let (scenario, ports) = Scenario::read(path)?;
    let stop = stop_on_signals()?;
    let lab = Lab::build(&scenario, &ports)?;
    (0..scenario.nodes.len()).try_for_each(|node| truth::install(&lab, node))?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{} stands. Look inside with:", scenario.name)?;
    for place in scenario.places() {
        writeln!(stdout, "  ip netns exec {} sh", lab.space(place))?;
    }
    writeln!(stdout, "Ctrl-C removes it.")?;
    loop {
        match verify::check_stop(&stop) {
            Ok(()) => thread::sleep(Duration::from_millis(100)),
            Err(LabError::Interrupted) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    Ok(stop)
}

fn time(text: &str) -> Result<Duration, String> {
    weir_lab::scenario::parse_time(text)
        .ok_or_else(|| format!("`{text}` is no time; write 500ms, 60s or 2m"))
}
