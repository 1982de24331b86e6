//! The cluster's totals by whose bytes they are and of which class, against what weir says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_flow::{Counters, Totals};

use super::churn;
use super::ground::Pair;
use crate::error::LabError;
use crate::text::line;

/// What totals are asked by.
pub(super) const BY: &str = "source.owner_id,destination.owner_id,class";

/// A pair's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TotalsLine {
    /// The id of the source's owner.
    pub source: String,
    /// The id of the destination's owner.
    pub destination: String,
    /// The class.
    pub class: String,
    /// Bytes that were, both directions.
    pub truth: [u64; 2],
    /// Bytes that weir says; nothing where it does not know the pair.
    pub weir: Option<[u64; 2]>,
}

impl TotalsLine {
    /// True when there is no difference.
    pub fn is_exact(&self) -> bool {
        self.weir.unwrap_or_default() == self.truth
    }

    /// True when weir has more than there was.
    pub fn is_excess(&self) -> bool {
        let [sent, received] = self.weir.unwrap_or_default();
        sent > self.truth[0] || received > self.truth[1]
    }

    /// Bytes that weir does not have.
    pub fn missing(&self) -> u64 {
        let [sent, received] = self.weir.unwrap_or_default();
        self.truth[0].saturating_sub(sent) + self.truth[1].saturating_sub(received)
    }
}

/// Holds weir's totals against the truth, pair by pair.
pub fn compare(
    truth: &BTreeMap<Pair, Totals>,
    weir: Option<&BTreeMap<Pair, Totals>>,
) -> Vec<TotalsLine> {
    let empty = BTreeMap::new();
    let said = weir.unwrap_or(&empty);
    let bytes = |totals: &Totals| [totals.sent.bytes, totals.received.bytes];
    let mut pairs: Vec<&Pair> = truth.keys().chain(said.keys()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let line = |pair: &Pair| TotalsLine {
        source: pair.source.clone(),
        destination: pair.destination.clone(),
        class: pair.class.clone(),
        truth: truth.get(pair).map(bytes).unwrap_or_default(),
        weir: said.get(pair).map(bytes),
    };
    pairs.into_iter().map(line).collect()
}

/// Reads weir's answer to a question by [`BY`].
pub(super) fn parse(text: &str) -> Result<BTreeMap<Pair, Totals>, LabError> {
    #[derive(Deserialize)]
    struct Answer {
        rows: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "source.owner_id")]
        source: Option<String>,
        #[serde(rename = "destination.owner_id")]
        destination: Option<String>,
        class: String,
        bytes_sent: Option<u64>,
        bytes_received: Option<u64>,
        packets_sent: Option<u64>,
        packets_received: Option<u64>,
    }
    let answer: Answer = serde_json::from_str(text).map_err(|error| LabError::Answer {
        program: "weir".to_owned(),
        message: error.to_string(),
    })?;
    let owner = |id: Option<String>| churn::owner(&id.unwrap_or_default()).to_owned();
    let mut pairs: BTreeMap<Pair, Totals> = BTreeMap::new();
    for row in answer.rows {
        let counters = |packets: Option<u64>, bytes: Option<u64>| Counters {
            packets: packets.unwrap_or_default(),
            bytes: bytes.unwrap_or_default(),
        };
        let pair = Pair {
            source: owner(row.source),
            destination: owner(row.destination),
            class: row.class,
        };
        *pairs.entry(pair).or_default() += Totals {
            sent: counters(row.packets_sent, row.bytes_sent),
            received: counters(row.packets_received, row.bytes_received),
        };
    }
    Ok(pairs)
}

/// The lines as a table for people.
pub fn table(lines: &[TotalsLine], with_weir: bool) -> String {
    let mut rows = vec![
        ["SOURCE", "DESTINATION", "CLASS", "TRUTH SENT", "RECEIVED", "WEIR SENT", "RECEIVED", ""]
            .map(str::to_owned),
    ];
    for total in lines {
        let said =
            |index: usize| total.weir.map_or_else(|| "-".to_owned(), |w| w[index].to_string());
        let verdict = if total.is_exact() { "exact" } else { "differs" };
        rows.push([
            total.source.clone(),
            total.destination.clone(),
            total.class.clone(),
            total.truth[0].to_string(),
            total.truth[1].to_string(),
            said(0),
            said(1),
            if with_weir { verdict } else { "" }.to_owned(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, width))| match column {
                0..=2 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        line(&mut text, cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_another_class_is_another_pair() {
        let text = r#"{"rows": [{"source.owner_id": "workload/shop/Deployment/api",
            "destination.owner_id": "node/one", "class": "cross_zone", "bytes_sent": 7,
            "bytes_received": 9, "packets_sent": 1, "packets_received": 1}]}"#;
        let said = parse(text).unwrap();
        let (pair, totals) = said.first_key_value().unwrap();
        let same_zone = Pair { class: "same_zone".to_owned(), ..pair.clone() };
        let lines = compare(&BTreeMap::from([(same_zone, *totals)]), Some(&said));
        assert_eq!(lines.iter().filter(|line| line.is_exact()).count(), 0);
        assert!(lines[0].is_excess() && lines[1].missing() == 16, "{lines:?}");
        let lines = compare(&said, Some(&said));
        assert!(lines.iter().all(TotalsLine::is_exact));
    }
}
