//! Listening to the kernel: a thread that keeps the book.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

use hashbrown::HashMap;
use weir_conntrack::Error;
use weir_conntrack::netlink::{Message, Received, Request, Socket, messages};
use weir_flow::WallTime;
use weir_proto::Fact;

use super::book::{Holder, Key};
use super::message::{
    ADDRESS_HEADER, IFLA_EXT_MASK, LINK_HEADER, Link, ROUTE_HEADER, RTM_DELADDR, RTM_DELLINK,
    RTM_DELROUTE, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
    SKIP_STATS, address, host_route, link,
};
use super::{Facts, SINCE_BEFORE};
use crate::{AgentError, clock};

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// Room for changes that wait to be read.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// The kernel fills no more than this per receive.
const BUFFER_BYTES: usize = 32 * 1024;
/// The thread looks for a stop this often.
const STOP_CHECK: Duration = Duration::from_millis(500);
/// Interfaces followed at a time.
const LINKS_MAX: usize = 65_536;
/// After a failure the thread waits this long before it begins again.
const PAUSE: Duration = Duration::from_secs(5);
/// How often what is there is written down for the next agent of this boot, if it changed.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// Larger than anything the agent writes down.
const SAVED_BYTES_MAX: u64 = 4 << 20;

/// Reads this network namespace's addresses and keeps `facts` up to date with every change until
/// `stopping` is set. What is there is kept in `saved`, so that the next agent of this boot knows
/// since when.
pub fn watch(
    facts: &Facts,
    saved: &Path,
    stopping: &Arc<AtomicBool>,
) -> Result<JoinHandle<()>, AgentError> {
    let mut watch = Watch::open(facts.clone())?;
    watch.read_all(SINCE_BEFORE)?;
    let saved = Saved { path: saved.to_owned(), boot: clock::boot_id()?, at: None, changes: 0 };
    saved.load(facts);
    let stopping = Arc::clone(stopping);
    let run = move || run(watch, saved, &stopping);
    thread::Builder::new()
        .name("facts".to_owned())
        .spawn(run)
        .map_err(|_refused| AgentError::Thread { thread: "facts" })
}

fn run(mut watch: Watch, mut saved: Saved, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Acquire) {
        if let Err(error) = watch.listen_once() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "this node's addresses cannot be followed; beginning again"
            );
            let before = watch.heard;
            thread::sleep(PAUSE);
            match Watch::open(watch.facts.clone()) {
                Ok(new) => watch = new,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "not yet");
                    continue;
                }
            }
            drop(watch.read_all(before));
        }
        saved.save(&watch.facts, false);
    }
    saved.save(&watch.facts, true);
}

struct Watch {
    facts: Facts,
    /// Joined to the groups; nothing is ever asked on it.
    changes: Socket,
    questions: Socket,
    buffer: Vec<u8>,
    links: HashMap<u32, Link>,
    /// When everything heard so far had been heard.
    heard: WallTime,
}

impl Watch {
    fn open(facts: Facts) -> Result<Self, Error> {
        let changes = Socket::open(libc::NETLINK_ROUTE)?;
        changes.set_receive_buffer(RECEIVE_BUFFER_BYTES)?;
        GROUPS.into_iter().try_for_each(|group| changes.join(group))?;
        let questions = Socket::open(libc::NETLINK_ROUTE)?;
        let (buffer, heard) = (vec![0; BUFFER_BYTES], clock::wall());
        Ok(Self { facts, changes, questions, buffer, links: HashMap::new(), heard })
    }

    /// Waits a while for changes, and takes those that come.
    fn listen_once(&mut self) -> Result<(), Error> {
        if !self.changes.wait(STOP_CHECK)? {
            self.heard = clock::wall();
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let received = self.changes.receive(&mut buffer);
        self.buffer = buffer;
        match received? {
            Received::Data(size) => {
                let at = clock::wall();
                let bytes = std::mem::take(&mut self.buffer);
                self.take(bytes.get(..size).unwrap_or_default(), at);
                self.buffer = bytes;
                self.heard = at;
                self.facts.has_changed();
                Ok(())
            }
            Received::Empty => Ok(()),
            Received::Overrun | Received::Cut { .. } => {
                self.facts.lock().was_overrun();
                self.read_all(self.heard)
            }
        }
    }

    fn take(&mut self, datagram: &[u8], at: WallTime) {
        for message in messages(datagram) {
            let taken = message.and_then(|message| self.change(&message, at));
            if taken.is_err() {
                self.facts.lock().could_not_read(1);
            }
        }
    }

    fn change(
        &mut self,
        message: &Message<'_>,
        at: WallTime,
    ) -> Result<(), weir_conntrack::Malformed> {
        match message.kind {
            RTM_NEWLINK => {
                let link = link(message)?;
                if !link.up {
                    self.facts.lock().interface_went(link.index, true, at);
                }
                self.keep(link);
            }
            RTM_DELLINK => {
                let link = link(message)?;
                self.links.remove(&link.index);
                self.facts.lock().interface_went(link.index, false, at);
            }
            RTM_NEWADDR | RTM_DELADDR => {
                let Some((key, holder)) = address(message)? else { return Ok(()) };
                if self.is_the_nodes(holder) {
                    self.note(message.kind == RTM_NEWADDR, key, holder, at);
                }
            }
            RTM_NEWROUTE | RTM_DELROUTE => {
                let Some((key, holder)) = host_route(message)? else { return Ok(()) };
                // A route that goes was one that came, whatever its interface is by now.
                if message.kind == RTM_DELROUTE || self.leads_inside(holder) {
                    self.note(message.kind == RTM_NEWROUTE, key, holder, at);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&self, came: bool, key: Key, holder: Holder, at: WallTime) {
        let mut book = self.facts.lock();
        if came { book.came(key, holder, at) } else { book.went(key, holder, at) }
    }

    fn keep(&mut self, link: Link) {
        if self.links.len() < LINKS_MAX || self.links.contains_key(&link.index) {
            self.links.insert(link.index, link);
        }
    }

    fn leads_inside(&self, holder: Holder) -> bool {
        self.links.get(&holder.interface).is_some_and(|link| link.leads_inside)
    }

    fn is_the_nodes(&self, holder: Holder) -> bool {
        self.links.get(&holder.interface).is_none_or(|link| !link.holds_services)
    }

    /// Reads everything; what came unheard may have come since `before`.
    fn read_all(&mut self, before: WallTime) -> Result<(), Error> {
        let mut unreadable = 0;
        let mut links = Vec::new();
        let mut request = Request::new(RTM_GETLINK, Request::DUMP, &[0; LINK_HEADER]);
        request.attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        self.ask(&request, "list this node's interfaces", |message| match link(message) {
            Ok(link) => links.push(link),
            Err(_) => unreadable += 1,
        })?;
        self.links.clear();
        for link in links {
            self.keep(link);
        }

        let mut found = Vec::new();
        let mut keep = |parsed: Result<Option<(Key, Holder)>, _>| match parsed {
            Ok(one) => found.extend(one),
            Err(_) => unreadable += 1,
        };
        let request = Request::new(RTM_GETADDR, Request::DUMP, &[0; ADDRESS_HEADER]);
        self.ask(&request, "list this node's addresses", |message| keep(address(message)))?;
        let request = Request::new(RTM_GETROUTE, Request::DUMP, &[0; ROUTE_HEADER]);
        self.ask(&request, "list this node's routes", |message| keep(host_route(message)))?;

        let mut read: BTreeMap<Key, Vec<Holder>> = BTreeMap::new();
        for (key, holder) in found {
            let counts =
                if key.own { self.is_the_nodes(holder) } else { self.leads_inside(holder) };
            if counts {
                read.entry(key).or_default().push(holder);
            }
        }
        let at = clock::wall();
        let mut book = self.facts.lock();
        book.could_not_read(unreadable);
        book.replace(&read, before, at);
        drop(book);
        self.facts.has_changed();
        Ok(())
    }

    fn ask(
        &mut self,
        request: &Request,
        operation: &'static str,
        each: impl FnMut(&Message<'_>),
    ) -> Result<(), Error> {
        self.questions.ask(request, operation, &mut self.buffer, each)
    }
}

/// What is there, for the next agent of this boot: the boot, then an address a line.
struct Saved {
    path: PathBuf,
    boot: u128,
    at: Option<Instant>,
    changes: u64,
}

impl Saved {
    /// Takes over since when addresses are there.
    fn load(&self, facts: &Facts) {
        let small = fs::metadata(&self.path).is_ok_and(|file| file.len() <= SAVED_BYTES_MAX);
        let Some(text) = small.then(|| fs::read_to_string(&self.path).ok()).flatten() else {
            return;
        };
        let mut lines = text.lines();
        if lines.next() != Some(format!("{:032x}", self.boot).as_str()) {
            return;
        }
        let mut book = facts.lock();
        lines.filter_map(parse).for_each(|fact| book.remember(&fact));
    }

    /// Best effort: without it the next agent says "since before".
    fn save(&mut self, facts: &Facts, now: bool) {
        let due = self.at.is_none_or(|at| at.elapsed() >= SAVE_EVERY) || now;
        let changes = facts.counts().changes;
        if !due || changes == self.changes {
            return;
        }
        self.at = Some(Instant::now());
        let mut text = format!("{:032x}\n", self.boot);
        for fact in facts.lock().present_facts().filter(|fact| fact.from != SINCE_BEFORE) {
            let kind = if fact.own { "own" } else { "routed" };
            writeln!(text, "{kind} {} {}", fact.address, fact.from.0).expect("a string has room");
        }
        let temporary = self.path.with_extension("tmp");
        let written: io::Result<()> =
            fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &self.path));
        match written {
            Ok(()) => self.changes = changes,
            Err(error) => tracing::debug!(%error, "addresses not written down"),
        }
    }
}

fn parse(line: &str) -> Option<Fact> {
    let mut words = line.split(' ');
    let own = match words.next()? {
        "own" => true,
        "routed" => false,
        _ => return None,
    };
    let address = words.next()?.parse().ok()?;
    let from = WallTime(words.next()?.parse().ok()?);
    Some(Fact { address, own, from, to: None })
}
