//! What is different where agents on several machines speak.

use weir_flow::Field;
use weir_server::answer::{RateRow, Status};

use super::{App, Scope, node_name};
use crate::top::live::columns::Column;
use crate::top::live::talkers;

impl App {
    /// True where agents on several machines speak.
    pub(in crate::top::live) fn is_cluster(&self) -> bool {
        self.scope == Scope::Cluster
    }

    /// Agents are processes of their own in a cluster: then workloads, zones and classes are worth
    /// a place. What somebody chose stays.
    pub(super) fn look_for_cluster(&mut self, status: &Status) {
        let is_apart = status.nodes.iter().any(|node| node.agent_version.is_some());
        if self.is_cluster() || !(is_apart || status.nodes.len() > 1) {
            return;
        }
        self.scope = Scope::Cluster;
        if self.columns == Column::usual(false) {
            self.columns = Column::usual(true);
        }
        let chosen = self.groups.swap_remove(self.group);
        let was_chosen = !talkers::presets().contains(&chosen) || self.group > 0;
        self.groups = talkers::cluster_presets();
        self.group = 0;
        if was_chosen {
            self.group =
                self.groups.iter().position(|group| *group == chosen).unwrap_or_else(|| {
                    self.groups.insert(0, chosen);
                    0
                });
        }
        self.forget_talkers();
    }

    /// An agent whose node moves nothing, or that is gone, has its line too.
    pub(super) fn add_silent_nodes(&mut self) {
        self.sort_nodes();
        let said = self.status.as_ref().map_or(&[][..], |status| &status.nodes);
        let silent = said.iter().filter(|said| self.node_row(&said.node).is_none()).map(|said| {
            let fields = [(Field::Node.to_string(), Some(said.node.clone()))].into();
            RateRow { fields, ..RateRow::default() }
        });
        let silent: Vec<RateRow> = silent.collect();
        self.nodes.extend(silent);
        self.sort_nodes();
    }

    fn sort_nodes(&mut self) {
        self.nodes.sort_by(|left, right| node_name(left).cmp(node_name(right)));
    }

    /// The sums of this node.
    pub(in crate::top::live) fn node_row(&self, name: &str) -> Option<&RateRow> {
        let place = self.nodes.binary_search_by(|row| node_name(row).cmp(name));
        place.ok().and_then(|place| self.nodes.get(place))
    }
}
