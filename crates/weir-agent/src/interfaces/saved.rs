//! Counters as text, kept beside the spool so that the time in which weir did not run has a bound.

use std::fmt::Write as _;

use super::links::{Link, LinkCounters};
use super::stack::Stack;
use super::{InterfaceCounters, MAX_INTERFACES};

/// The format's name and version.
const FIRST_LINE: &str = "weir interface counters 1";

/// Why text is not what [`InterfaceCounters::to_text`] writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the saved interface counters is not {expected}")]
pub struct Unreadable {
    /// The line, from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl InterfaceCounters {
    /// The counters as text, a line an interface.
    pub fn to_text(&self) -> String {
        let Stack { received_octets, sent_octets, delivered_packets, forwarded_packets, .. } =
            self.stack;
        let twice = u8::from(self.stack.forwarded_twice);
        let mut text = format!(
            "{FIRST_LINE}\n{}\n{received_octets} {sent_octets} {delivered_packets} \
             {forwarded_packets} {twice} {}\n",
            self.boot, self.unread
        );
        for link in &self.links {
            let LinkCounters { received_packets, sent_packets, received_bytes, sent_bytes } =
                link.counters;
            let (index, hardware, master) = (link.index, link.hardware, link.master.unwrap_or(0));
            // No kind has a space; a name may not either (`dev_valid_name`), but it comes last.
            let kind = if link.kind.is_empty() { "-" } else { &link.kind };
            writeln!(
                text,
                "{index} {hardware} {master} {received_packets} {sent_packets} {received_bytes} \
                 {sent_bytes} {kind} {}",
                link.name
            )
            .expect("a String takes everything");
        }
        text
    }

    /// Reads what [`InterfaceCounters::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self, Unreadable> {
        let mut lines = text.lines();
        let fail = |line, expected| Unreadable { line, expected };
        if lines.next() != Some(FIRST_LINE) {
            return Err(fail(1, "the name of this format"));
        }
        let boot = lines.next().ok_or_else(|| fail(2, "a boot id"))?.to_owned();
        let stack = lines.next().and_then(stack).ok_or_else(|| fail(3, "six numbers"))?;
        let mut links: Vec<Link> = Vec::new();
        for (place, line) in lines.enumerate() {
            let fail = || fail(place + 4, "an interface's counters");
            let link = link(line).ok_or_else(fail)?;
            let ascending = links.last().is_none_or(|last| last.index < link.index);
            if !ascending || links.len() == MAX_INTERFACES {
                return Err(fail());
            }
            links.push(link);
        }
        let (stack, unread) = stack;
        Ok(Self { boot, stack, links, unread })
    }
}

fn stack(line: &str) -> Option<(Stack, u64)> {
    let [received_octets, sent_octets, delivered_packets, forwarded_packets, twice, unread] =
        numbers(&mut line.split(' '))?;
    let stack = Stack {
        received_octets,
        sent_octets,
        delivered_packets,
        forwarded_packets,
        forwarded_twice: twice != 0,
    };
    Some((stack, unread))
}

fn link(line: &str) -> Option<Link> {
    let mut words = line.splitn(9, ' ');
    let [index, hardware, master, received_packets, sent_packets, received_bytes, sent_bytes] =
        numbers(&mut words)?;
    let (kind, name) = (words.next()?, words.next()?);
    let master = u32::try_from(master).ok()?;
    Some(Link {
        index: index.try_into().ok()?,
        name: name.to_owned(),
        hardware: hardware.try_into().ok()?,
        master: (master != 0).then_some(master),
        kind: if kind == "-" { String::new() } else { kind.to_owned() },
        counters: LinkCounters { received_packets, sent_packets, received_bytes, sent_bytes },
    })
}

fn numbers<const N: usize>(words: &mut dyn Iterator<Item = &str>) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    Some(numbers)
}
