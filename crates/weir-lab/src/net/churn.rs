//! Pods that come and go while a box stands, at an address that others have had before.

use std::net::IpAddr;

use super::setup::{batch, nodad, route, whole};
use super::{Lab, command_in, run};
use crate::command;
use crate::error::LabError;
use crate::scenario::{Family, Place};
use crate::text::line;

/// A pod's namespace, joined to its node by a wire and a route to its address alone.
#[derive(Debug)]
pub(crate) struct Visitor {
    space: String,
    node_space: String,
    device: String,
    is_gone: bool,
}

impl Visitor {
    /// Makes the namespace, the wire and the route. `number` must be of this visitor alone.
    pub(crate) fn arrive(
        lab: &Lab,
        node: usize,
        address: IpAddr,
        number: u16,
    ) -> Result<Self, LabError> {
        let space = lab.run.space(&format!("visitor-{number}"));
        command::run("ip", &["netns", "add", &space], "")?;
        let node_space = lab.space(Place::Node(node)).to_owned();
        let device = format!("vis{number}");
        let visitor = Self { space, node_space, device: device.clone(), is_gone: false };
        let mut outer = String::new();
        let space = &visitor.space;
        // Both ends are told who the other is, so that nobody has to ask.
        let [high, low] = number.to_be_bytes();
        let mac = |side: u8| format!("02:77:6c:{side:02x}:{high:02x}:{low:02x}");
        line(
            &mut outer,
            &format!(
                "link add {device} address {} type veth peer name eth0 address {} netns {space}",
                mac(1),
                mac(2)
            ),
        );
        line(&mut outer, &format!("link set {device} up"));
        line(
            &mut outer,
            &format!("neigh add {address} lladdr {} dev {device} nud permanent", mac(2)),
        );
        batch(&visitor.node_space, &outer)?;
        let mut own = String::from("link set lo up\nlink set eth0 up\n");
        line(
            &mut own,
            &format!("addr add {address}/{} dev eth0{}", whole(address), nodad(address)),
        );
        let hop = if Family::of(address) == Family::V4 { "169.254.1.1" } else { "fe80::1" };
        line(&mut own, &format!("neigh add {hop} lladdr {} dev eth0 nud permanent", mac(1)));
        if address.is_ipv4() {
            line(&mut own, &format!("route add {hop}/32 dev eth0"));
        }
        line(&mut own, &format!("{} default via {hop} dev eth0", route(address)));
        batch(space, &own)?;
        let mut reach = String::new();
        line(&mut reach, &format!("{} {address}/{} dev {device}", route(address), whole(address)));
        batch(&visitor.node_space, &reach)?;
        Ok(visitor)
    }

    /// A command that will run in the pod.
    pub(crate) fn command(&self, program: &std::ffi::OsStr) -> std::process::Command {
        command_in(&self.space, program)
    }

    /// Takes the wire, and with it the route, and the namespace away.
    pub(crate) fn leave(mut self) -> Result<(), LabError> {
        self.is_gone = true;
        batch(&self.node_space, &format!("link del {}\n", self.device))?;
        run::remove(&self.space)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if !self.is_gone {
            // The next start removes what cannot be removed here.
            drop(run::remove(&self.space));
        }
    }
}
