//! What came of a run, for people.

use super::{ChurnOutcome, EngineOutcome, Imposters, LiveLine, Outcome, kubenetmon, totals};
use crate::compare;
use crate::text::line;

/// The outcome as text.
pub fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    if let Some(imposters) = &outcome.imposters {
        tell_imposters(&mut text, imposters);
        return text;
    }
    text.push_str(&compare::table(&outcome.comparison));
    line(&mut text, "");
    text.push_str(&totals::table(&outcome.totals, outcome.weir));
    line(&mut text, "");
    let views = &outcome.views;
    line(
        &mut text,
        &format!(
            "second views: {} groups, {} bytes beside {} counted; {} more, {} less",
            views.groups,
            views.second_bytes,
            views.counted_bytes,
            views.more_bytes,
            views.less_bytes
        ),
    );
    for example in &views.examples {
        line(&mut text, &format!("second views: {example}"));
    }
    if views.transport_packets > 0 {
        line(
            &mut text,
            &format!(
                "transport: {} bytes in {} packets carry {} bytes in {} packets; {} unexplained",
                views.transport_bytes,
                views.transport_packets,
                views.carried_bytes,
                views.carried_packets,
                views.unexplained_bytes
            ),
        );
    }
    if outcome.transport_in_totals {
        line(&mut text, "transport: weir has it in totals that did not ask for it");
    }
    if let Some(engine) = &outcome.engine {
        let EngineOutcome { batches, repeated_batches, raced_batches, must_race: _, kills } =
            engine;
        line(
            &mut text,
            &format!(
                "clickhouse: {batches} batches inserted, {repeated_batches} of them more than \
                 once, {raced_batches} by more than one server; killed {kills} times"
            ),
        );
    }
    for LiveLine { server, nodes, peers } in &outcome.live {
        let nodes: Vec<String> =
            nodes.iter().map(|(node, count)| format!("{count} on {node}")).collect();
        let nodes = nodes.join(", ");
        line(&mut text, &format!("server {server}: connections {nodes}; {} peers", peers.len()));
    }
    if let Some(table) = &outcome.kubenetmon {
        kubenetmon::tell(&mut text, table);
    }
    if let Some(churn) = &outcome.churn {
        tell_churn(&mut text, churn);
    }
    text
}

fn tell_imposters(text: &mut String, imposters: &Imposters) {
    line(
        text,
        &format!(
            "{} agents that must not be believed: {} rows, {} tokens told in the log",
            imposters.agents, imposters.rows, imposters.tokens_told
        ),
    );
    for token in &imposters.unexplained {
        line(text, &format!("the log does not say why an agent is refused: {token}"));
    }
    for said in &imposters.log {
        line(text, &format!("server: {said}"));
    }
}

fn tell_churn(text: &mut String, churn: &ChurnOutcome) {
    line(
        text,
        &format!(
            "churn: {} pods, {} bytes: {} right, {} wrong, {} ambiguous, \
             {} unnamed ({:.2} % of at most {} % are not named)",
            churn.pods,
            churn.bytes,
            churn.right_bytes,
            churn.wrong_bytes,
            churn.ambiguous_bytes,
            churn.unnamed_bytes,
            churn.unnamed_percent(),
            churn.allowed_percent
        ),
    );
    for example in &churn.examples {
        line(text, &format!("churn: {example}"));
    }
}
