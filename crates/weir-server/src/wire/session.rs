//! One agent's stream: a greeting, then batches up and answers down, until either side ends it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};
use weir_flow::ingest::{Answer, Ranges};
use weir_flow::{Name, WallTime};
use weir_proto::limits::{REASON_BYTES_MAX, STATUS_BYTES_MAX};
use weir_proto::pb::{self, from_agent, from_server};
use weir_proto::{Fact, Greeting, Measured, SPOKEN, UnpackLimits, Unpacker, negotiate, shortened};

use super::batch::{Stream, unpacked};
use super::counts::Malformation;
use super::door::{Place, Shared};
use super::identify::{Denial, Denied, Identity, checked_node};
use super::{Announcement, Spoken, WireLimits, stopped};

/// What goes back to the agent.
pub(super) type Outgoing = mpsc::Sender<Result<pb::FromServer, Status>>;

/// Facts of one picture, in all its messages.
const PICTURE_FACTS_MAX: usize = 1 << 16;

/// A stream whose credentials were looked at.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) incoming: Streaming<pb::FromAgent>,
    pub(super) outgoing: Outgoing,
    /// `None` where nobody is asked who they are.
    pub(super) identity: Option<Identity>,
    /// To be shown again and again while the stream lasts.
    pub(super) token: Option<String>,
    /// Where it comes from, for the log.
    pub(super) peer: String,
}

/// Why a stream ended.
enum End {
    /// The connection broke.
    Gone,
    /// The agent has said all it wants to, and waits for the answers.
    Said,
    /// It is time; the agent may come again after this.
    Time(&'static str, Duration),
    /// It is not let in any more.
    Denied(Denied),
    /// It said something that makes no sense.
    Nonsense(String),
    /// It takes no answers, or says nothing.
    Stuck(&'static str),
}

/// The state of a stream after its greeting.
struct Talk {
    stream: Stream,
    answers: JoinSet<Answered>,
    unpacker: Unpacker,
    /// A picture of addresses that is not whole yet.
    picture: Vec<Fact>,
    clock: Measured,
    spoken: Spoken,
    heard: Instant,
    /// How long the stream may last.
    life: Duration,
    /// Bytes of batches that are not answered.
    open_bytes: usize,
}

/// A batch's answer, and how many bytes it had on the wire.
struct Answered {
    sequence: u64,
    answer: Answer,
    packed_bytes: usize,
    /// When its interval ended, where that could be read.
    sealed_at: Option<WallTime>,
}

impl Session {
    pub(super) async fn run(mut self) {
        let end = match self.greet().await {
            Ok((talk, place)) => {
                let present = Arc::clone(&self.shared);
                let _counted = present.counts.stream();
                let end = self.talk(talk).await;
                drop(place);
                end
            }
            Err(end) => end,
        };
        match end {
            End::Gone | End::Said | End::Time(..) => {}
            End::Denied(denied) => {
                let status = self.shared.deny(&self.peer, &denied);
                drop(timeout(self.limits().answer_time, self.outgoing.send(Err(status))).await);
            }
            End::Nonsense(what) => {
                tracing::warn!(peer = self.peer, what, "an agent's stream is ended");
                let status = Status::invalid_argument(what);
                drop(timeout(self.limits().answer_time, self.outgoing.send(Err(status))).await);
            }
            End::Stuck(what) => tracing::info!(peer = self.peer, what, "an agent's stream is cut"),
        }
    }

    fn limits(&self) -> WireLimits {
        self.shared.limits
    }

    async fn greet(&mut self) -> Result<(Talk, Place), End> {
        let denied = |reason, detail: String| End::Denied(Denied::new(reason, detail));
        let greeting_time = self.limits().greeting_time;
        let first = timeout(greeting_time, self.incoming.message()).await;
        let first =
            first.map_err(|_late| denied(Denial::Greeting, "no greeting in time".into()))?;
        let message = first.map_err(|_broken| End::Gone)?.and_then(|it| it.message);
        let Some(from_agent::Message::Hello(hello)) = message else {
            let detail = "the first message is no greeting".to_owned();
            return Err(denied(Denial::Greeting, detail));
        };
        let greeting = Greeting::try_from(&hello)
            .map_err(|error| denied(Denial::Greeting, error.to_string()))?;
        let protocol = negotiate(&SPOKEN, &greeting.versions)
            .map_err(|error| denied(Denial::Version, error.to_string()))?;
        let identity = match &self.identity {
            Some(identity) => identity.clone(),
            // Nobody is asked: whoever it is must at least have a name.
            None => Identity {
                node: checked_node(&greeting.node).map_err(End::Denied)?,
                subject: "nobody was asked".to_owned(),
            },
        };
        if !greeting.node.is_empty() && greeting.node != identity.node {
            let detail = format!(
                "{} says it runs on {:?}, its credentials are for {:?}",
                identity.subject, greeting.node, identity.node
            );
            return Err(denied(Denial::OtherNode, detail));
        }
        let node = Name::from(identity.node.as_str());
        let place = self.shared.place(&node).map_err(End::Denied)?;
        let now = (self.shared.clock)();
        self.shared.greets(&node, &greeting, now).map_err(End::Denied)?;
        let committed = self.shared.queue.committed(greeting.epoch).await;
        let committed = committed.ok_or(End::Time("the server is stopping", STOP_PAUSE))?;

        let talk = self.talk_of(node, &greeting, now);
        let welcome = self.welcome(protocol, &talk, &committed);
        self.say(from_server::Message::Welcome(welcome)).await?;
        let (node, version) = (&talk.stream.node, &greeting.version);
        tracing::info!(%node, version, epoch = %greeting.epoch, peer = self.peer, "agent connected");
        self.shared.announce.speaks(&talk.stream.node, greeting.epoch_born.min(now));
        Ok((talk, place))
    }

    fn talk_of(&self, node: Name, greeting: &Greeting, now: WallTime) -> Talk {
        let limits =
            UnpackLimits { unpacked_bytes: self.limits().frame_bytes, ..UnpackLimits::default() };
        let spoken = Spoken {
            version: greeting.version.clone(),
            last_batch: None,
            sealed_at: None,
            clock: None,
            epoch: greeting.epoch,
        };
        Talk {
            stream: Stream { node, epoch: greeting.epoch },
            answers: JoinSet::new(),
            unpacker: Unpacker::new(limits),
            picture: Vec::new(),
            clock: Measured::from_hello(greeting.now, now),
            spoken,
            heard: Instant::now(),
            life: jittered(self.limits().life_min..self.limits().life_max),
            open_bytes: 0,
        }
    }

    fn welcome(&self, protocol: u32, talk: &Talk, committed: &Ranges) -> pb::Welcome {
        let limits = self.limits();
        let spans = committed.spans().iter();
        pb::Welcome {
            protocol,
            node: talk.stream.node.to_string(),
            max_frame_bytes: saturated(limits.frame_bytes),
            max_records: saturated(limits.records),
            committed: spans.map(|&(first, last)| pb::Range { first, last }).collect(),
            ends_after_seconds: saturated(talk.life.as_secs()),
            max_unanswered_bytes: saturated(limits.open_bytes),
            max_unanswered_batches: saturated(limits.open_batches),
            now_nanos: (self.shared.clock)().0,
        }
    }

    async fn talk(&mut self, mut talk: Talk) -> End {
        let limits = self.limits();
        let ends = Instant::now() + talk.life;
        let mut ask_again = Instant::now() + limits.identify_every;
        let mut stop = self.shared.stop.clone();
        loop {
            let reads =
                talk.open_bytes < limits.open_bytes && talk.answers.len() < limits.open_batches;
            let step = tokio::select! {
                message = self.incoming.message(), if reads => match message {
                    Ok(Some(message)) => self.hear(&mut talk, message).await,
                    Ok(None) => Err(End::Said),
                    Err(_) => Err(End::Gone),
                },
                Some(answered) = talk.answers.join_next() => {
                    self.answer(&mut talk, answered.ok()).await
                }
                () = sleep_until(ask_again) => {
                    ask_again += limits.identify_every;
                    self.still_known(&talk.stream.node).await
                }
                () = sleep_until(ends) => {
                    Err(End::Time("streams end after a while, to be opened again", Duration::ZERO))
                }
                () = sleep_until(talk.heard + limits.silence), if reads => {
                    Err(End::Stuck("it said nothing for a while"))
                }
                () = stopped(&mut stop) => Err(End::Time("the server is stopping", STOP_PAUSE)),
            };
            if let Err(end) = step {
                return self.finish(talk, end).await;
            }
        }
    }

    /// Says goodbye where there is somebody to hear it, and lets answers on their way arrive. What
    /// is still in the queue then is committed with nobody to tell: the agent asks again.
    async fn finish(&mut self, mut talk: Talk, end: End) -> End {
        if let End::Time(reason, after) = &end {
            let after_millis = saturated(after.as_millis());
            let goodbye = pb::Goodbye { reason: (*reason).to_owned(), after_millis };
            if self.say(from_server::Message::Goodbye(goodbye)).await.is_err() {
                return end;
            }
        }
        if matches!(end, End::Time(..) | End::Said) {
            let rest = async {
                while let Some(answered) = talk.answers.join_next().await {
                    if self.answer(&mut talk, answered.ok()).await.is_err() {
                        return;
                    }
                }
            };
            drop(timeout(self.shared.limits.goodbye_time, rest).await);
        }
        end
    }

    async fn hear(&mut self, talk: &mut Talk, message: pb::FromAgent) -> Result<(), End> {
        talk.heard = Instant::now();
        match message.message {
            Some(from_agent::Message::Batch(batch)) => self.batch(talk, batch).await,
            Some(from_agent::Message::Facts(facts)) => self.facts(talk, &facts),
            Some(from_agent::Message::Status(status)) => {
                self.status(talk, &status);
                Ok(())
            }
            Some(from_agent::Message::Ping(ping)) => {
                let now = (self.shared.clock)();
                talk.clock = Measured::from_ping(&ping, now);
                self.say(from_server::Message::Pong(pb::Pong { now_nanos: now.0 })).await
            }
            Some(from_agent::Message::Hello(_)) => {
                Err(End::Nonsense("a second greeting in one stream".to_owned()))
            }
            None => {
                self.shared.counts.count_malformed(Malformation::Unknown);
                Ok(())
            }
        }
    }

    async fn batch(&mut self, talk: &mut Talk, batch: pb::Batch) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let (sequence, packed_bytes) = (batch.sequence, batch.frame.len());
        shared.counts.count_batch(packed_bytes, batch.frame_bytes);
        talk.open_bytes += packed_bytes;
        let said = usize::try_from(batch.frame_bytes).unwrap_or(usize::MAX);
        // Room first: nothing is decompressed that nobody could hold.
        let room = shared.queue.room(said.min(shared.limits.frame_bytes)).await;
        let frame = unpacked(&shared, &mut talk.unpacker, &talk.stream, &batch);
        drop(batch);
        let skew_nanos = talk.clock.bound_nanos();
        let speaker = talk.stream.speaker(skew_nanos, self.shared.authenticates());
        talk.answers.spawn(async move {
            let (answer, sealed_at) = match frame {
                Ok((frame, sealed_at)) => {
                    (shared.queue.submit(speaker, frame, room).await, Some(sealed_at))
                }
                Err(refused) => (refused, None),
            };
            Answered { sequence, answer, packed_bytes, sealed_at }
        });
        Ok(())
    }

    async fn answer(&self, talk: &mut Talk, answered: Option<Answered>) -> Result<(), End> {
        // A task that panicked took its batch with it; the agent will send it again.
        let Some(answered) = answered else { return Ok(()) };
        let Answered { sequence, answer, packed_bytes, sealed_at } = answered;
        talk.open_bytes = talk.open_bytes.saturating_sub(packed_bytes);
        let bounded = |reason: &str| shortened(reason, REASON_BYTES_MAX).to_owned();
        let outcome = match &answer {
            Answer::Committed => {
                talk.spoken.committed((self.shared.clock)(), sealed_at);
                pb::answer::Outcome::Committed(pb::Committed {})
            }
            Answer::Retry { after, reason } => pb::answer::Outcome::Retry(pb::Retry {
                after_millis: saturated(after.as_millis()),
                reason: bounded(reason),
            }),
            Answer::Refused { reason } => {
                let node = &talk.stream.node;
                tracing::warn!(%node, sequence, reason, "a batch is refused for good");
                pb::answer::Outcome::Refused(pb::Refused { reason: bounded(reason) })
            }
        };
        let answer = pb::Answer { sequence, outcome: Some(outcome) };
        self.say(from_server::Message::Answer(answer)).await
    }

    fn facts(&self, talk: &mut Talk, message: &pb::Facts) -> Result<(), End> {
        let facts = match Fact::all(message) {
            Ok(facts) => facts,
            Err(error) => {
                self.shared.counts.count_malformed(Malformation::Facts);
                return Err(End::Nonsense(error.to_string()));
            }
        };
        self.shared.counts.count_facts(facts.len());
        let at = (self.shared.clock)();
        let announce = |facts, complete| {
            let node = Name::clone(&talk.stream.node);
            self.shared.announce.announce(Announcement { node, complete, facts, at });
        };
        if !message.complete {
            announce(facts, false);
            return Ok(());
        }
        if talk.picture.len() + facts.len() > PICTURE_FACTS_MAX {
            self.shared.counts.count_malformed(Malformation::Facts);
            let what = format!("more than {PICTURE_FACTS_MAX} addresses on one node");
            return Err(End::Nonsense(what));
        }
        talk.picture.extend(facts);
        if !message.more {
            let picture = std::mem::take(&mut talk.picture);
            let node = Name::clone(&talk.stream.node);
            self.shared.announce.announce(Announcement {
                node,
                complete: true,
                facts: picture,
                at,
            });
        }
        Ok(())
    }

    fn status(&self, talk: &mut Talk, status: &pb::Status) {
        let parsed = (status.json.len() <= STATUS_BYTES_MAX)
            .then(|| serde_json::from_slice(&status.json).ok())
            .flatten();
        let Some(said) = parsed else {
            // What an agent says of itself is for people; its batches are still good.
            self.shared.counts.count_malformed(Malformation::Status);
            return;
        };
        talk.spoken.clock = Some(talk.clock);
        self.shared.tell(&talk.stream.node, said, &talk.spoken);
    }

    /// Shows the token again.
    async fn still_known(&self, node: &str) -> Result<(), End> {
        let Some(token) = &self.token else { return Ok(()) };
        match self.shared.identify(token).await {
            Ok(identity) if identity.node == node => Ok(()),
            Ok(identity) => {
                let detail = format!("the token is for {:?} now, not {node:?}", identity.node);
                Err(End::Denied(Denied::new(Denial::OtherNode, detail)))
            }
            // Who was let in goes on where nobody can be asked; the stream ends before long.
            Err(denied) if denied.retry => Ok(()),
            Err(denied) => Err(End::Denied(denied)),
        }
    }

    async fn say(&self, message: from_server::Message) -> Result<(), End> {
        let message = pb::FromServer { message: Some(message) };
        match timeout(self.shared.limits.answer_time, self.outgoing.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(End::Gone),
            Err(_late) => Err(End::Stuck("it takes no answers")),
        }
    }
}

/// How long agents wait before they look for a server that stops.
const STOP_PAUSE: Duration = Duration::from_secs(1);

impl Spoken {
    fn committed(&mut self, now: WallTime, sealed_at: Option<WallTime>) {
        self.last_batch = Some(now);
        self.sealed_at = self.sealed_at.max(sealed_at);
    }
}

/// A time within the range, another one for every stream.
fn jittered(range: Range<Duration>) -> Duration {
    // The seeds of hash maps are random, which is random enough for this.
    let random = u32::try_from(RandomState::new().hash_one(0_u8) % 1_024).unwrap_or_default();
    range.start + range.end.saturating_sub(range.start) / 1_024 * random
}

fn saturated<T: TryInto<u32>>(number: T) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
