//! Taking the way between the agents and the server away, and giving it back.

use std::net::Ipv4Addr;

use super::{Lab, fabric, run_in};
use crate::error::LabError;

impl Lab {
    /// Drops everything between a node's agent and the server.
    pub fn cut(&self, node: usize) -> Result<(), LabError> {
        let port = fabric::port(node);
        let rules = format!(
            "table inet weirlab_cut{node} {{\n  chain in {{\n    \
             type filter hook input priority 0\n    iifname \"{port}\" drop\n  }}\n  \
             chain out {{\n    type filter hook output priority 0\n    \
             oifname \"{port}\" drop\n  }}\n}}\n"
        );
        run_in(self.control(), "nft", &["-f", "-"], &rules).map(drop)
    }

    /// Undoes [`Lab::cut`].
    pub fn mend(&self, node: usize) -> Result<(), LabError> {
        let rules = format!("delete table inet weirlab_cut{node}\n");
        run_in(self.control(), "nft", &["-f", "-"], &rules).map(drop)
    }

    /// Answers every packet to the server's port with a reset.
    pub fn refuse(&self, port: u16) -> Result<(), LabError> {
        let rules = format!(
            "table inet weirlab_refuse {{\n  chain in {{\n    \
             type filter hook input priority 0\n    \
             tcp dport {port} reject with tcp reset\n  }}\n}}\n"
        );
        run_in(self.control(), "nft", &["-f", "-"], &rules).map(drop)
    }

    /// Leads new connections from one server's port to another's, and ends the old ones.
    pub fn divert(&self, from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Result<(), LabError> {
        let rules = format!(
            "table ip weirlab_divert {{\n  chain turn {{\n    \
             type nat hook prerouting priority dstnat\n    \
             ip daddr {from} tcp dport {port} dnat to {to}\n  }}\n  \
             chain in {{\n    type filter hook input priority 0\n    \
             ip daddr {from} tcp dport {port} reject with tcp reset\n  }}\n}}\n"
        );
        run_in(self.control(), "nft", &["-f", "-"], &rules).map(drop)
    }

    /// Undoes [`Lab::divert`] for connections to come.
    pub fn lead_back(&self) -> Result<(), LabError> {
        run_in(self.control(), "nft", &["-f", "-"], "delete table ip weirlab_divert\n").map(drop)
    }

    /// Undoes [`Lab::refuse`].
    pub fn accept(&self) -> Result<(), LabError> {
        run_in(self.control(), "nft", &["-f", "-"], "delete table inet weirlab_refuse\n").map(drop)
    }
}
