//! What a cluster of 30,000 pods costs to know: memory at rest, while it is listed, and while it is
//! listed again.
//!
//! `cargo bench -p weir-server --bench directory`. Prints one figure a line:
//! `NAME VALUE UNIT target OP X ok|short`. The Kubernetes API runs in a process of its own.
//! `WEIR_BENCH_PODS` sets how many pods there are.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use mimalloc::MiMalloc;
use serde_json::{Value, json};
use weir_flow::WallTime;
use weir_lab::figures::{at_most, float, inform, kilobytes};
use weir_lab::kube::{self, Api, Fault};
use weir_server::cluster::{Access, Config, Heard, Watched};

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Calls this program again, as the API.
const CHILD: &str = "serve-the-api";
/// Calls it again, to know a cluster without pods.
const EMPTY: &str = "without-pods";
const NODES: u64 = 300;
const SERVICES: u64 = 5_000;
const PODS_OF_A_SET: u64 = 10;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(5);

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == CHILD) {
        return serve(arguments.get(1).context("no number of pods")?.parse()?);
    }
    if arguments.first().is_some_and(|word| word == EMPTY) {
        let known = Known::of(0)?;
        inform("resident", resident("RssAnon:")?, "kB");
        return known.end();
    }
    // `cargo test --all-targets` runs this too, without the flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let pods = match env::var("WEIR_BENCH_PODS") {
        Ok(text) => text.parse().with_context(|| format!("WEIR_BENCH_PODS={text}"))?,
        Err(_) => 30_000,
    };
    measure(pods)
}

fn measure(pods: u64) -> Result<()> {
    let empty = Command::new(env::current_exe()?).arg(EMPTY).output()?;
    let empty = String::from_utf8(empty.stdout)?;
    let empty: f64 = empty.split_whitespace().nth(1).context("nothing without pods")?.parse()?;
    let begin = Instant::now();
    let mut known = Known::of(pods)?;
    inform("directory_list_seconds", begin.elapsed().as_secs_f64(), "s");
    ensure!(known.watched.counts().addresses as u64 >= pods, "not every pod is known");
    at_most("directory_resident", resident("VmRSS:")? / 1e3, "MB", 80.0);
    inform("directory_peak", resident("VmHWM:")? / 1e3, "MB");
    let bytes = (resident("RssAnon:")? - empty) * 1e3 / float(pods);
    at_most("directory_bytes_per_pod", bytes, "B", 1_200.0);

    let lists = lists(&known.watched);
    writeln!(known.hears, "gone")?;
    until(&known.watched, |_| lists_more(&known.watched, lists))?;
    at_most("directory_resident_listed_again", resident("VmRSS:")? / 1e3, "MB", 80.0);
    at_most("directory_peak_listed_again", resident("VmHWM:")? / 1e3, "MB", 80.0);
    known.end()
}

fn resident(what: &str) -> Result<f64> {
    Ok(float(kilobytes(std::process::id(), what)?))
}

/// A cluster, and who knows it.
struct Known {
    watched: Watched,
    api: Child,
    hears: ChildStdin,
}

impl Known {
    fn of(pods: u64) -> Result<Self> {
        let mut api = Command::new(env::current_exe()?)
            .args([CHILD, &pods.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut says = BufReader::new(api.stdout.take().context("no output")?).lines();
        let hears = api.stdin.take().context("no input")?;
        let kubeconfig = says.next().context("the API says nothing")??;
        let clock = Arc::new(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            WallTime(u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX))
        });
        let mut watched = Watched::open(Config::default(), None, clock)?;
        watched.watch(Access::Kubeconfig(kubeconfig.into()))?;
        until(&watched, |heard| heard.is_synced)?;
        Ok(Self { watched, api, hears })
    }

    fn end(self) -> Result<()> {
        let Self { watched, mut api, hears } = self;
        drop((watched, hears));
        ensure!(api.wait()?.success(), "the API failed");
        Ok(())
    }
}

fn lists(watched: &Watched) -> u64 {
    watched.resources().iter().find(|it| it.resource == "pods").map_or(0, |it| it.lists)
}

fn lists_more(watched: &Watched, before: u64) -> bool {
    lists(watched) > before
}

/// Waits until something is so, looking whenever something was heard.
fn until(watched: &Watched, is_so: impl Fn(&Heard) -> bool) -> Result<()> {
    let mut heard = watched.heard();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let waited = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, heard.wait_for(|heard| is_so(heard))).await.map(|_| ())
    });
    waited.context("it takes too long")
}

/// Serves a cluster until the input ends; `gone` on it makes everybody list the pods again.
fn serve(pods: u64) -> Result<()> {
    let api = Api::start(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = |base: u32, number: u64| -> Result<IpAddr> {
        Ok(Ipv4Addr::from(base + u32::try_from(number)?).into())
    };
    for number in 0..NODES {
        let zone = ["eu-1a", "eu-1b", "eu-1c"][usize::try_from(number % 3)?];
        let network = format!("10.{}.{}.0/24", 128 + number / 256, number % 256);
        let name = format!("ip-10-1-{number}.eu-1.compute.internal");
        api.put(kube::node(&name, &[address(0x0a01_0000, number)?], &[&network], zone))?;
    }
    for number in 0..SERVICES {
        let namespace = format!("namespace-{}", number % 100);
        let addresses = [address(0x0a60_0000, number)?];
        api.put(kube::service(&namespace, &format!("service-{number}"), &addresses, 80))?;
    }
    for number in 0..pods {
        let set = number / PODS_OF_A_SET;
        let namespace = format!("namespace-{}", set % 100);
        let (name, uid) = (format!("checkout-{set}-7d9c6bf5b4"), format!("{set:032x}"));
        if number % PODS_OF_A_SET == 0 {
            let controller = format!("checkout-{set}");
            let controller = Some(("Deployment", controller.as_str(), "d"));
            api.put(kube::workload("ReplicaSet", &namespace, &name, &uid, controller))?;
        }
        api.put(pod(number, &namespace, &name, &uid, address(0x0a80_0000, number)?))?;
    }
    let path = env::temp_dir().join(format!("weir-bench-{}.kubeconfig", std::process::id()));
    std::fs::write(&path, api.kubeconfig())?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", path.display())?;
    for line in std::io::stdin().lines() {
        if line? == "gone" {
            api.fault(Fault::Gone { resource: "pods".to_owned() });
        }
    }
    std::fs::remove_file(path)?;
    Ok(())
}

/// A pod with all the weight that real ones carry.
fn pod(number: u64, namespace: &str, set: &str, uid: &str, address: IpAddr) -> Value {
    let node = format!("ip-10-1-{}.eu-1.compute.internal", number % NODES);
    let started = SystemTime::now() - Duration::from_hours(1);
    let mut pod = kube::pod(namespace, &format!("{set}-{number:05x}"), &node, &[address], started);
    pod["metadata"]["ownerReferences"] =
        json!([{ "kind": "ReplicaSet", "name": set, "uid": uid, "controller": true }]);
    pod["metadata"]["labels"] = json!({ "app.kubernetes.io/name": format!("app-{}", number % 500),
        "pod-template-hash": "7d9c6bf5b4", "team": format!("team-{}", number % 40) });
    let managed: Value = (0..12).map(|field| (format!("f:field-{field}"), json!({}))).collect();
    pod["metadata"]["managedFields"] = json!([{ "manager": "kubelet", "operation": "Update",
        "fieldsV1": { "f:metadata": managed, "f:status": managed } }]);
    let environment: Vec<Value> = (0..20)
        .map(|it| json!({ "name": format!("VARIABLE_{it}"), "value": "x".repeat(40) }))
        .collect();
    pod["spec"]["containers"] = json!([{ "name": "main", "image": "registry.example/app:1.2.3",
        "env": environment, "ports": [{ "name": "http", "containerPort": 8080 }],
        "livenessProbe": { "httpGet": { "path": "/live", "port": "http" } },
        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } } }]);
    pod
}
