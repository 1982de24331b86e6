//! Whose token an agent shows, decided by the Kubernetes API.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connect::{Access, ClusterError};
use super::lenient::{Any, Fields, Lenient};
use super::{Watched, chain};
use crate::wire::{Denial, Denied, Identify, Identifying, IdentifyingServer, Identity};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Bytes of a token; a service account's has about a thousand.
const TOKEN_BYTES: usize = 16 * 1_024;
/// The API must have answered by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reviews asked for at the same time.
const AT_ONCE: usize = 16;

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Which tokens are let in.
#[derive(Clone, Debug)]
pub struct ReviewerConfig {
    /// For whom a token must have been made.
    pub audience: String,
    /// The service accounts that agents run as: namespace and name.
    pub accounts: Vec<(Box<str>, Box<str>)>,
    /// The service accounts that other servers run as.
    pub servers: Vec<(Box<str>, Box<str>)>,
    /// How long a yes is remembered. Streams ask again every 10 s: together that is how soon an
    /// agent that was shut out is out, and 60 s is the most it may take.
    pub yes: Duration,
    /// How long a no is remembered.
    pub no: Duration,
    /// How many answers are remembered.
    pub answers: usize,
}

impl Default for ReviewerConfig {
    fn default() -> Self {
        Self {
            audience: "weir".to_owned(),
            accounts: vec![("weir".into(), "weir-agent".into())],
            servers: vec![("weir".into(), "weir-server".into())],
            yes: Duration::from_secs(50),
            no: Duration::from_secs(10),
            answers: 16_384,
        }
    }
}

/// Whose token it is, as an agent's and as a server's.
#[derive(Clone, Debug)]
struct Bearer {
    agent: Result<Identity, Denied>,
    server: Result<String, Denied>,
}

/// Until when, and what.
type Answer = (Instant, Result<Bearer, Denied>);

/// Asks the API whose token it is, and remembers the answer for a while.
pub struct Reviewer {
    client: Client,
    watched: Arc<Watched>,
    config: ReviewerConfig,
    /// By a keyed hash: tokens themselves are not kept.
    answers: Mutex<HashMap<u128, Answer>>,
    keys: [RandomState; 2],
    /// Whoever floods with tokens does not flood the API.
    asking: Semaphore,
}

impl Reviewer {
    /// A reviewer that asks from the runtime this is called in. Where a token does not say its
    /// node, `watched` knows the node of its pod.
    pub async fn connect(
        access: &Access,
        watched: Arc<Watched>,
        config: ReviewerConfig,
    ) -> Result<Self, ClusterError> {
        let client = access.client().await?;
        let keys = [RandomState::new(), RandomState::new()];
        let asking = Semaphore::new(AT_ONCE);
        Ok(Self { client, watched, config, answers: Mutex::default(), keys, asking })
    }

    async fn whose(&self, token: &str) -> Result<Bearer, Denied> {
        if token.len() > TOKEN_BYTES {
            return Err(Denied::new(Denial::Malformed, "the token is too long to be one"));
        }
        let key = self.key(token);
        let now = Instant::now();
        if let Some(answer) = self.remembered(key, now) {
            return answer;
        }
        let answer = self.ask(token).await;
        self.remember(key, now, &answer);
        answer
    }

    async fn ask(&self, token: &str) -> Result<Bearer, Denied> {
        let audiences = [&self.config.audience];
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token, "audiences": audiences } });
        let request = hyper::Request::post(PATH)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(review.to_string().into_bytes())
            .expect("a constant path and constant headers are valid");
        let answer = timeout(PATIENCE, async {
            let _permit = self.asking.acquire().await;
            self.client.request_text(request).await
        });
        let answer = answer.await;
        let answer = answer
            .map_err(|_elapsed| Denied::undecided("the Kubernetes API does not answer in time"))?
            .map_err(|error| Denied::undecided(why(&error)))?;
        // The answer repeats the token, so nothing of it may get into an error.
        let review: Any<Fields<Review>> = serde_json::from_str(&answer)
            .map_err(|_unreadable| Denied::undecided("the review of the token cannot be read"))?;
        self.judge(&review.into_inner().unwrap_or_default()).map_err(|denied| {
            // Some authenticator may repeat it in its own words.
            let detail = denied.detail.replace(token, "(the token)");
            Denied { detail, ..denied }
        })
    }

    fn judge(&self, review: &Review) -> Result<Bearer, Denied> {
        let status = review.status.fields();
        let status = status.ok_or_else(|| Denied::undecided("the token's review has no status"))?;
        if status.authenticated.get() != Some(&true) {
            let said = status.error.text().unwrap_or("the API knows no such token");
            // There is no code for it; the real API and those made like it say it so.
            let is_other = said.contains("audience");
            let denial = if is_other { Denial::WrongAudience } else { Denial::Unauthenticated };
            return Err(Denied::new(denial, printable(said)));
        }
        let audience = &*self.config.audience;
        if !status.audiences.items().iter().any(|of| **of == *audience) {
            // Without any, it was made for the API server itself.
            let detail = format!("the token was not made for the audience {audience:?}");
            return Err(Denied::new(Denial::WrongAudience, detail));
        }
        let user = status.user.fields();
        let name = user.and_then(|user| user.username.text()).unwrap_or_default();
        Ok(Bearer { agent: self.agent(name, user), server: self.server(name) })
    }

    fn agent(&self, name: &str, user: Option<&User>) -> Result<Identity, Denied> {
        if !is_among(&self.config.accounts, name) {
            let detail = format!(
                "{} is not an agent's account: name it with --agent-account if it is to be",
                printable(name)
            );
            return Err(Denied::new(Denial::NotAnAgent, detail));
        }
        let node = user.and_then(|user| self.node(user)).ok_or_else(|| {
            let detail = "neither the token nor its pod says a node: mount a projected token of the \
                          agent's own pod";
            Denied { retry: true, ..Denied::new(Denial::NoNode, detail) }
        })?;
        Ok(Identity { node, subject: name.to_owned() })
    }

    fn server(&self, name: &str) -> Result<String, Denied> {
        if is_among(&self.config.servers, name) {
            return Ok(name.to_owned());
        }
        let detail = format!(
            "{} is not a server's account: name it with --server-account if it is to be",
            printable(name)
        );
        Err(Denied::new(Denial::NotAServer, detail))
    }

    /// The node the token is bound to; before Kubernetes 1.32 it only says the pod.
    fn node(&self, user: &User) -> Option<String> {
        let extra = user.extra.get()?;
        if let Some(node) = extra.first(NODE_NAME) {
            return Some(node.to_owned());
        }
        self.watched.node_of(extra.first(POD_UID)?).map(|node| node.as_ref().to_owned())
    }

    fn key(&self, token: &str) -> u128 {
        let [high, low] = &self.keys;
        u128::from(high.hash_one(token)) << 64 | u128::from(low.hash_one(token))
    }

    fn remembered(&self, key: u128, now: Instant) -> Option<Result<Bearer, Denied>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&key).filter(|(until, _)| *until > now).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, key: u128, now: Instant, answer: &Result<Bearer, Denied>) {
        let kept = match answer {
            // What could not be decided is asked again.
            Err(denied) | Ok(Bearer { agent: Err(denied), .. }) if denied.retry => return,
            Ok(bearer) if bearer.is_let_in() => self.config.yes,
            Ok(_) | Err(_) => self.config.no,
        };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= self.config.answers {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() >= self.config.answers {
            // Whoever floods with tokens gets no more than noes forgotten.
            answers.retain(|_, (_, answer)| answer.as_ref().is_ok_and(Bearer::is_let_in));
        }
        if answers.len() < self.config.answers {
            answers.insert(key, (now + kept, answer.clone()));
        }
    }
}

impl Identify for Reviewer {
    fn identify<'a>(&'a self, token: &'a str) -> Identifying<'a> {
        Box::pin(async { self.whose(token).await?.agent })
    }

    fn identify_server<'a>(&'a self, token: &'a str) -> IdentifyingServer<'a> {
        Box::pin(async { self.whose(token).await?.server })
    }
}

impl Bearer {
    fn is_let_in(&self) -> bool {
        self.agent.is_ok() || self.server.is_ok()
    }
}

/// True where a user's name is that of one of these accounts.
fn is_among(accounts: &[(Box<str>, Box<str>)], name: &str) -> bool {
    let account = name.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'));
    account.is_some_and(|account| {
        accounts.iter().any(|(namespace, name)| (&**namespace, &**name) == account)
    })
}

/// Why the API gave no review.
fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            "weir may not review tokens: give its service account a ClusterRole with apiGroups \
             [\"authentication.k8s.io\"], resources [\"tokenreviews\"], verbs [\"create\"]"
                .to_owned()
        }
        other => format!("the Kubernetes API cannot review tokens: {}", printable(&chain(other))),
    }
}

/// The beginning of what somebody else wrote, in one line.
fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Any<Fields<ReviewStatus>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    authenticated: Any<bool>,
    error: Any<Box<str>>,
    audiences: Any<Vec<Box<str>>>,
    user: Any<Fields<User>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: Any<Box<str>>,
    extra: Any<Extra>,
}

/// Facts of a user: lists by name.
struct Extra(Vec<(Box<str>, Box<str>)>);

impl Extra {
    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| **key == *name).map(|(_, value)| &**value)
    }
}

impl Lenient for Extra {
    fn map<'de, A: serde::de::MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut facts = Vec::new();
        while let Some((key, values)) = map.next_entry::<Any<Box<str>>, Any<Vec<Box<str>>>>()? {
            if let (Some(key), [value, ..]) = (key.get(), values.items())
                && facts.len() < 64
            {
                facts.push((key.clone(), value.clone()));
            }
        }
        Ok(Some(Self(facts)))
    }
}
