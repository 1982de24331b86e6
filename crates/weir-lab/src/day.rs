//! A day of flows, made up from a fixed seed, for benchmarks of whoever keeps or answers them:
//! sessions between 2,000 local endpoints and 3,000 external addresses, with a few busy and many
//! quiet ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weir_flow::{Class, Endpoint, EndpointKind, Flow, FlowKey, Folded, Level, Measures, Protocol};

/// 2026-11-19T12:23:40Z: neither end of the day is a whole minute of an hour.
pub const START: u64 = 1_795_091_020;
/// How long a day is.
pub const SECONDS: u64 = 86_400;
/// How many units there are on the local endpoints: `app-0.service` and so on.
pub const UNITS: u32 = 300;
const WINDOWS: u64 = SECONDS / 10;
const LOCALS: u32 = 2_000;
const EXTERNALS: u32 = 3_000;
const HOSTS: u32 = 120;

/// A day's flows, which come window by window.
#[derive(Debug)]
pub struct Day {
    start: u64,
    /// Rows of the finest level that the day has.
    rows: u64,
    endpoints: Vec<Arc<Endpoint>>,
    traffic: Traffic,
}

/// The flows of some windows of a day, none of which is in two hours.
#[derive(Debug)]
pub struct Part {
    /// When the last window ends, seconds since 1970.
    pub end_seconds: u64,
    /// The flows, with the endpoints they name and no others.
    pub flows: Folded,
}

impl Day {
    /// The day that begins at `start` and has at least `rows` rows of the finest level.
    pub fn new(start: u64, rows: u64) -> Self {
        let endpoints = (0..LOCALS + EXTERNALS).map(|index| Arc::new(endpoint(index))).collect();
        Self { start, rows, endpoints, traffic: Traffic::new(rows / WINDOWS + 1) }
    }

    /// The day in parts of whole windows that do not cross an hour and have at least `least` rows,
    /// where the hour has them.
    pub fn in_parts(mut self, least: usize) -> impl Iterator<Item = Part> {
        let mut windows = 0..WINDOWS;
        let mut given = 0;
        std::iter::from_fn(move || {
            let mut finest = Vec::new();
            while given < self.rows {
                let Some(window) = windows.next() else { break };
                let start = self.start + window * 10;
                self.traffic.window(start, &mut finest);
                let end_seconds = start + 10;
                let is_whole = finest.len() >= least || end_seconds.is_multiple_of(3_600);
                if (is_whole || windows.is_empty()) && !finest.is_empty() {
                    given += finest.len() as u64;
                    let flows = folded(&self.endpoints, std::mem::take(&mut finest));
                    return Some(Part { end_seconds, flows });
                }
            }
            None
        })
    }
}

/// The flows with the endpoints they name, and no others, as batches have them.
fn folded(all: &[Arc<Endpoint>], mut finest: Vec<Flow>) -> Folded {
    let mut indices: BTreeMap<u32, u32> = BTreeMap::new();
    let mut endpoints = Vec::new();
    let mut index = |number: u32| {
        *indices.entry(number).or_insert_with(|| {
            endpoints.push(Arc::clone(&all[number as usize]));
            u32::try_from(endpoints.len() - 1).expect("thousands of endpoints")
        })
    };
    for flow in &mut finest {
        flow.key.source = index(flow.key.source);
        flow.key.destination = index(flow.key.destination);
    }
    finest.sort_unstable_by_key(|flow| flow.key);
    let coarser = |level: Level| {
        let mut sums: BTreeMap<FlowKey, Measures> = BTreeMap::new();
        for flow in &finest {
            let window = flow.key.window - flow.key.window % level.seconds();
            *sums.entry(FlowKey { window, ..flow.key }).or_default() += flow.measures;
        }
        sums.into_iter().map(|(key, measures)| Flow { key, measures }).collect()
    };
    let (minute, hour) = (coarser(Level::Minute), coarser(Level::Hour));
    Folded { endpoints, levels: [finest, minute, hour], ..Folded::default() }
}

fn endpoint(index: u32) -> Endpoint {
    if index >= LOCALS {
        let address = Ipv4Addr::from(0xc633_0000 + (index - LOCALS) * 7);
        return Endpoint::bare(EndpointKind::External, IpAddr::V4(address));
    }
    let mut local =
        Endpoint::bare(EndpointKind::Host, IpAddr::V4(Ipv4Addr::from(0x0af4_0000 + index * 3)));
    local.host = Some(format!("node-{}", index % HOSTS).into());
    local.unit = Some(format!("app-{}.service", index * 7 % UNITS).into());
    local
}

/// Sessions that come and go.
#[derive(Debug)]
struct Traffic {
    random: u64,
    per_window: u64,
    /// Flow keys at work, with the windows they still have.
    active: BTreeMap<(u32, u32, u16), u32>,
}

impl Traffic {
    fn new(per_window: u64) -> Self {
        Self { random: 0x5eed, per_window, active: BTreeMap::new() }
    }

    /// The flows of the next window, in the order of their keys.
    fn window(&mut self, window: u64, flows: &mut Vec<Flow>) {
        while (self.active.len() as u64) < self.per_window {
            let (key, windows) = self.session();
            self.active.entry(key).or_insert(windows);
        }
        let mut active = std::mem::take(&mut self.active);
        active.retain(|&(source, destination, destination_port), left| {
            let key = FlowKey {
                window,
                protocol: if destination_port == 53 { Protocol::UDP } else { Protocol::TCP },
                source,
                destination,
                destination_port,
                service: (destination % 3 == 0 && destination < LOCALS)
                    .then(|| (Ipv4Addr::from(0x0a60_0000 + destination % 200).into(), 80)),
                service_name: None,
                class: match (destination < LOCALS, source % HOSTS == destination % HOSTS) {
                    (false, _) => Class::Internet,
                    (true, true) => Class::SameNode,
                    (true, false) => Class::IntraVpc,
                },
            };
            let measures = self.measures(*left);
            flows.push(Flow { key, measures });
            *left -= 1;
            *left > 0
        });
        self.active = active;
    }

    /// A new session: who talks to whom, and for how many windows.
    fn session(&mut self) -> ((u32, u32, u16), u32) {
        let source = self.skewed(LOCALS);
        // Everybody has some forty peers, the same every time.
        let peer = u64::from(self.skewed(40)) << 32 | u64::from(source);
        let peer = mixed(peer);
        let number = u32::try_from(peer >> 32).expect("32 bits are left");
        let (destination, port) = match peer % 100 {
            0..20 => (LOCALS + number % EXTERNALS, 443),
            20..30 => (number % 8, 53),
            _ => (number % LOCALS, [80, 443, 5_432, 6_379, 8_080, 9_092][(peer % 6) as usize]),
        };
        // A third are over at once; the others last minutes.
        let windows = match self.next() % 3 {
            0 => 1,
            _ => 2 + self.skewed(60),
        };
        ((source, destination, port), windows)
    }

    fn measures(&mut self, left: u32) -> Measures {
        let size = 64_u64 << (self.next() % 15);
        let (sent, received) = (size + self.next() % size, size * 3 + self.next() % (size * 2));
        let random = self.next();
        Measures {
            bytes_sent: sent,
            bytes_received: received,
            packets_sent: 1 + sent / 700,
            packets_received: 1 + received / 1_200,
            connections_opened: random % 3,
            connections_closed: if left == 1 { 1 + random % 3 } else { random % 2 },
            connections_failed: u64::from(random.is_multiple_of(50)),
            ..Measures::default()
        }
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.random)
    }

    /// Below `bound`, the small ones far more often: even on a scale of powers.
    fn skewed(&mut self, bound: u32) -> u32 {
        let bits = u64::from(bound.ilog2()) + 1;
        let below = 2_u64 << (self.next() % bits);
        u32::try_from(self.next() % below.min(u64::from(bound))).expect("below a 32-bit bound")
    }
}

/// The finaliser of `SplitMix64`.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
