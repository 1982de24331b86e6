//! One question to all at once, and whose word counts for which node.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use tokio::time::Instant as Deadline;

use super::merge;
use super::peer::{Failure, Peer};
use super::question::{Asked, Told};
use super::{Instance, PEERS_MAX, Peers, ROWS_MAX};
use crate::answer::{
    AnswerError, Connections, ConnectionsQuestion, NodeStatus, PeerState, PeerStatus, Rates,
    RatesQuestion,
};
use crate::live::Hold;

/// Beyond the deadline: for a task that has a result but no processor.
const GRACE: Duration = Duration::from_millis(200);

/// A server's word, and for which nodes it did not count.
struct Word {
    told: Told,
    without: HashSet<String>,
    took: Duration,
}

/// A word, or why there is none, and how long it took to learn that.
type Heard = Result<Word, (Failure, Option<Duration>)>;

/// What came of asking everybody.
struct Round {
    own: Word,
    theirs: Vec<(Arc<Peer>, Heard)>,
}

/// What somebody answered, and how long it took.
type Answered = (Arc<Peer>, Result<Option<Told>, Failure>, Duration);

/// Questions on their way.
struct OnTheWay {
    begun: Instant,
    asked: Vec<Arc<Peer>>,
    answers: Receiver<Answered>,
}

impl Peers {
    /// Connections of all servers.
    pub(crate) fn connections(
        &self,
        question: &ConnectionsQuestion,
    ) -> Result<Connections, AnswerError> {
        if question.offset.saturating_add(question.limit) > ROWS_MAX {
            return Err(AnswerError::Question(format!(
                "of several servers' connections only the first {ROWS_MAX} can be had: ask with a \
                 filter, or in another order"
            )));
        }
        let round = self.ask_all(&Asked::connections(question))?;
        let peers = self.statuses(&round);
        let answers = round.words().filter_map(|word| word.told.connections.clone());
        Ok(Connections { peers, ..merge::connections(question, answers) })
    }

    /// What moves at all servers.
    pub(crate) fn rates(&self, question: &RatesQuestion) -> Result<Rates, AnswerError> {
        let round = self.ask_all(&Asked::rates(question))?;
        let peers = self.statuses(&round);
        let answers = round.words().filter_map(|word| word.told.rates.clone());
        Ok(Rates { peers, ..merge::rates(question, answers) })
    }

    /// What agents last said, to whichever server.
    pub(crate) fn nodes(&self) -> Result<(Vec<NodeStatus>, Vec<PeerStatus>), AnswerError> {
        let round = self.ask_all(&Asked::Nodes)?;
        let peers = self.statuses(&round);
        let said = round.words().filter_map(|word| word.told.nodes.clone());
        Ok((merge::nodes(said), peers))
    }

    /// Asks everybody once, and those again that told of nodes of which others have newer word.
    fn ask_all(&self, asked: &Asked) -> Result<Round, AnswerError> {
        let deadline = Deadline::now() + self.deadline;
        let others = self.book.others();
        let (asking, troubled): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|peer| peer.trouble().is_none());
        let sent = self.send(asking.into_iter().map(|peer| (peer, asked.clone())), deadline);
        let own = self.own(asked, HashSet::new())?;
        let mut round = Round { own, theirs: Vec::new() };
        for peer in troubled {
            // It may have answered somebody else in the meantime.
            let failure = peer
                .trouble()
                .unwrap_or_else(|| Failure::new(PeerState::Unreachable, "it failed a moment ago"));
            round.theirs.push((peer, Err((failure, None))));
        }
        let mut seen: HashSet<Instance> = HashSet::from_iter([self.local.instance()]);
        for (peer, told, took) in self.collect(sent) {
            let is_new = peer.instance().is_none_or(|instance| seen.insert(instance));
            match told {
                // This server itself, or another one by a further address.
                Ok(None) => {}
                Ok(Some(_)) if !is_new => {}
                Ok(Some(told)) => {
                    let word = Word { told, without: HashSet::new(), took };
                    round.theirs.push((peer, Ok(word)));
                }
                Err(failure) => round.theirs.push((peer, Err((failure, Some(took))))),
            }
        }
        self.settle(asked, &mut round, deadline)?;
        round.theirs.sort_by_key(|(peer, _)| peer.address);
        Ok(round)
    }

    /// Asks again whoever told of nodes that are another one's.
    fn settle(
        &self,
        asked: &Asked,
        round: &mut Round,
        deadline: Deadline,
    ) -> Result<(), AnswerError> {
        if matches!(asked, Asked::Nodes | Asked::Holds) {
            return Ok(());
        }
        let owners = self.owners(round);
        let lost = |instance: Instance, told: &Told| -> HashSet<String> {
            let lost = told
                .holds
                .iter()
                .filter(|hold| owners.get(&hold.node).is_some_and(|(owner, _)| *owner != instance));
            lost.map(|hold| hold.node.clone()).collect()
        };
        let ours = lost(self.local.instance(), &round.own.told);
        let mut again = Vec::new();
        for (peer, word) in &mut round.theirs {
            let (Ok(told), Some(instance)) = (&mut *word, peer.instance()) else { continue };
            let without = lost(instance, &told.told);
            if without != told.without {
                let question = asked.without(without.iter().cloned().collect());
                told.without = without;
                again.push((Arc::clone(peer), question));
            }
        }
        let sent = self.send(again.into_iter(), deadline);
        if ours != round.own.without {
            round.own = self.own(asked, ours)?;
        }
        for (asked_again, told, took) in self.collect(sent) {
            let place =
                round.theirs.iter_mut().find(|(peer, _)| peer.address == asked_again.address);
            let Some((_, word)) = place else { continue };
            let Ok(before) = word else { continue };
            let took = before.took + took;
            match told {
                Ok(Some(told)) => (before.told, before.took) = (told, took),
                // What it said first counts nodes twice: better nothing, and said so.
                Ok(None) => {
                    let failure = Failure::new(PeerState::Failed, "it became this server itself");
                    *word = Err((failure, Some(took)));
                }
                Err(failure) => *word = Err((failure, Some(took))),
            }
        }
        Ok(())
    }

    /// For every node, who heard of it last. Those who do not answer now count by what they said
    /// before: what an older one holds does not become newer by their silence.
    fn owners(&self, round: &Round) -> HashMap<String, (Instance, Hold)> {
        let mut owners: HashMap<String, (Instance, Hold)> = HashMap::new();
        let mut claim = |instance: Instance, holds: &[Hold]| {
            for hold in holds {
                let is_ahead = owners.get(&hold.node).is_none_or(|(owner, best)| {
                    // A batch delivered to both: whoever has more of what came before.
                    let level = hold.is_level_with(best);
                    hold.is_newer_than(best)
                        || level && (hold.first, instance) < (best.first, *owner)
                });
                if is_ahead {
                    owners.insert(hold.node.clone(), (instance, hold.clone()));
                }
            }
        };
        claim(self.local.instance(), &round.own.told.holds);
        for (peer, word) in &round.theirs {
            let Some(instance) = peer.instance() else { continue };
            match word {
                Ok(word) => claim(instance, &word.told.holds),
                Err(_) => claim(instance, &peer.holds()),
            }
        }
        owners
    }

    fn own(&self, asked: &Asked, without: HashSet<String>) -> Result<Word, AnswerError> {
        let question = asked.without(without.iter().cloned().collect());
        let told = self.local.answer(question).map_err(AnswerError::Question)?;
        Ok(Word { told, without, took: Duration::ZERO })
    }

    fn send(&self, asks: impl Iterator<Item = (Arc<Peer>, Asked)>, deadline: Deadline) -> OnTheWay {
        // There is room for all, so nobody waits to be heard.
        let (sender, answers) = sync_channel(PEERS_MAX + 1);
        let mut all = Vec::new();
        for (peer, asked) in asks {
            let sender = sender.clone();
            all.push(Arc::clone(&peer));
            let Some(runtime) = &self.runtime else { continue };
            runtime.spawn(async move {
                let begun = Instant::now();
                let told = peer.ask(&asked, deadline).await;
                // Whoever asked may have gone.
                drop(sender.try_send((peer, told, begun.elapsed())));
            });
        }
        OnTheWay { begun: Instant::now(), asked: all, answers }
    }

    /// An answer of everybody who was asked, or why there is none. Each task ends at the deadline by
    /// itself.
    fn collect(&self, sent: OnTheWay) -> Vec<Answered> {
        let OnTheWay { begun, mut asked, answers } = sent;
        let mut all = Vec::with_capacity(asked.len());
        while !asked.is_empty() {
            let left = (self.deadline + GRACE).saturating_sub(begun.elapsed());
            let Ok(answered) = answers.recv_timeout(left) else { break };
            asked.retain(|peer| peer.address != answered.0.address);
            all.push(answered);
        }
        all.extend(asked.into_iter().map(|peer| {
            let failure = Failure::new(PeerState::Late, "this server was too busy to hear it");
            (peer, Err(failure), begun.elapsed())
        }));
        all
    }

    fn statuses(&self, round: &Round) -> Vec<PeerStatus> {
        let answered = round.theirs.iter().map(|(peer, word)| {
            let address = peer.address.to_string();
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            match word {
                Ok(Word { told, without, took }) => {
                    let nodes = told.nodes.as_ref().map_or(told.holds.len(), Vec::len);
                    let nodes = nodes.saturating_sub(without.len());
                    PeerStatus {
                        address,
                        state: PeerState::Ok,
                        reason: None,
                        milliseconds: Some(millis(*took)),
                        nodes: Some(u64::try_from(nodes).unwrap_or(u64::MAX)),
                    }
                }
                Err((Failure { state, reason }, took)) => PeerStatus {
                    address,
                    state: *state,
                    reason: Some(reason.clone()),
                    milliseconds: took.map(millis),
                    nodes: None,
                },
            }
        });
        answered.chain(self.book.missing()).collect()
    }
}

impl Round {
    fn words(&self) -> impl Iterator<Item = &Word> {
        let theirs = self.theirs.iter().filter_map(|(_, word)| word.as_ref().ok());
        std::iter::once(&self.own).chain(theirs)
    }
}
