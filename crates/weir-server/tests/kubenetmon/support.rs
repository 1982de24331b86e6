//! The door with a book behind it, and somebody who reports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Runtime;
use tonic::Status;
use tonic::codegen::tokio_stream;
use tonic::transport::{Channel, Endpoint};
use weir_flow::cluster::{Bounds, NodeFacts, Pod, Uid, Update};
use weir_flow::kubenetmon::{Row, Settings};
use weir_flow::{Name, WallTime};
use weir_proto::kubenetmon::flow::FlowTuple;
use weir_proto::kubenetmon::flow::flow_tuple::L4Endpoint;
use weir_proto::kubenetmon::flow::flow_tuple::l4_endpoint::IpAddr;
use weir_proto::kubenetmon::flow_handler_client::FlowHandlerClient;
use weir_proto::kubenetmon::{Flow, Observation};
use weir_server::Directories;
use weir_server::cluster::{Config, Watched};
use weir_server::kubenetmon::{Counts, Limits, Options, Running, start};
use weir_store::{KubenetmonSink, StoreError};

/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn at(seconds: u64) -> WallTime {
    WallTime(seconds * 1_000_000_000)
}

pub(crate) fn settings() -> Settings {
    Settings {
        environment: "development".into(),
        cloud: "aws".into(),
        region: "us-west-2".into(),
        cluster: "cluster".into(),
        ignore_udp: true,
        flags: Vec::new(),
    }
}

/// A book without Kubernetes: node `n1`, and on it the pod `ns/pod` with 10.0.0.1.
pub(crate) fn book() -> Arc<Watched> {
    let watched = Watched::open(Config::default(), None, Arc::new(|| at(now()))).unwrap();
    let name = |text: &str| Name::from(text);
    watched.apply(Update::Node(NodeFacts {
        name: name("n1"),
        addresses: vec!["1.2.3.4".parse().unwrap()],
        pod_networks: Vec::new(),
        zone: None,
        region: None,
        cloud: None,
        since: at(0),
    }));
    watched.apply(Update::Pod(Pod {
        uid: Uid::of("pod"),
        namespace: name("ns"),
        name: name("pod"),
        node: Some(name("n1")),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        host_network: false,
        workload: None,
        app: None,
        labels: None,
        from: Bounds::exactly(at(0)),
        ended: None,
        probe_ports: Vec::new(),
        runs_agent: false,
    }));
    watched.apply(Update::Synced { at: at(now()) });
    Arc::new(watched)
}

/// Takes rows, or fails a number of times first. Remembers tokens as the table does.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) failures: AtomicU32,
    pub(crate) inserts: Mutex<Vec<(Option<String>, Vec<Row>)>>,
    pub(crate) tokens: Mutex<Vec<Option<String>>>,
}

impl KubenetmonSink for Sink {
    fn insert_kubenetmon(&self, rows: &[Row], token: Option<&str>) -> Result<(), StoreError> {
        self.tokens.lock().unwrap().push(token.map(str::to_owned));
        let fails =
            self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if fails.is_ok() {
            return Err(StoreError::TimedOut { seconds: 1 });
        }
        self.inserts.lock().unwrap().push((token.map(str::to_owned), rows.to_vec()));
        Ok(())
    }
}

/// An open door, and a runtime for those who come to it.
pub(crate) struct Open {
    pub(crate) running: Running,
    pub(crate) runtime: Runtime,
}

/// How it is opened, where a test does not say otherwise.
pub(crate) fn options(sink: Arc<dyn KubenetmonSink>, directories: Arc<dyn Directories>) -> Options {
    Options {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        sink,
        directories,
        clock: Arc::new(|| at(now())),
        settings: settings(),
        batch_rows: 15_000,
        batch_time: Duration::from_millis(50),
        connection_age: Duration::from_mins(5),
        limits: Limits { retry_wait: Duration::from_millis(5), ..Limits::default() },
    }
}

pub(crate) fn open(options: Options) -> Open {
    let running = start(options).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    Open { running, runtime }
}

impl Open {
    pub(crate) fn client(&self) -> FlowHandlerClient<Channel> {
        let url = format!("http://{}", self.running.address);
        let target = Endpoint::from_shared(url).unwrap();
        FlowHandlerClient::new(self.runtime.block_on(target.connect()).unwrap())
    }

    /// Reports these in one call; the number of them that arrived.
    pub(crate) fn report(&self, observations: Vec<Observation>) -> Result<u32, Status> {
        let mut client = self.client();
        let stream = tokio_stream::iter(observations);
        let summary = self.runtime.block_on(client.submit(stream))?;
        Ok(summary.into_inner().observation_count)
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.running.counts()
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Counts) -> bool) {
        let (counts, begun) = (self.counts(), Instant::now());
        while !is_so(&counts) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}; {counts:?}");
            std::thread::yield_now();
        }
    }
}

pub(crate) fn endpoint(address: &str, port: u32) -> L4Endpoint {
    let address = match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => IpAddr::V4(v4.to_bits()),
        std::net::IpAddr::V6(v6) => IpAddr::V6(v6.octets().to_vec()),
    };
    L4Endpoint { port, ip_addr: Some(address) }
}

/// TCP from the pod to the internet, seen on its node.
pub(crate) fn observation(source_port: u32) -> Observation {
    let tuple = |from, to, packets| FlowTuple {
        source: Some(from),
        destination: Some(to),
        packets,
        bytes: packets + 1,
    };
    let (pod, there) = (|| endpoint("10.0.0.1", source_port), || endpoint("5.6.7.8", 443));
    let flow = Flow {
        proto: 6,
        original: Some(tuple(pod(), there(), 10)),
        reply: Some(tuple(there(), pod(), 12)),
    };
    Observation { flow: Some(flow), node_name: "n1".to_owned(), timestamp: now() }
}
