//! Version-level immutability before Azurite, which knows none: it passes over the headers.
//!
//! Blobs go to the real server, which checks the signature of each request, those of a policy included. What Microsoft's documents say
//! of policies is kept and told here. Nobody has compared this with Azure.

use super::AzuriteServer;
use crate::acceptor::locked;
use crate::{Canned, Exchange, Fate, HttpProxy};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The policy of a blob, and by which request it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureLock {
    /// `locked` or `unlocked`.
    pub mode: String,
    /// The text that was sent.
    pub until: String,
    /// `Put Blob` for the one that wrote the blob, `Set Blob Immutability Policy` for one that came later.
    pub by: &'static str,
}

#[derive(Debug, Default)]
struct State {
    has_immutability: bool,
    /// Takes policies, and forgets them.
    forgets: bool,
    /// Every blob that was written, and its policy.
    blobs: BTreeMap<String, Option<AzureLock>>,
    /// Requests that set a policy, of a new blob or of one that was there.
    requests: Vec<Exchange>,
    /// The account and container before each blob's name.
    root: String,
}

const UNTIL: &str = "x-ms-immutability-policy-until-date";
const MODE: &str = "x-ms-immutability-policy-mode";

/// The way to a server whose container has version-level immutability.
#[derive(Debug)]
pub struct ImmutableAzure {
    proxy: HttpProxy,
    state: Arc<Mutex<State>>,
}

impl ImmutableAzure {
    /// In front of `server`, for this container.
    pub fn before(server: &AzuriteServer, container: &str) -> Self {
        let proxy = HttpProxy::start(server.port());
        let root = format!("/{}/{container}", AzuriteServer::ACCOUNT);
        let state = Arc::new(Mutex::new(State { has_immutability: true, root, ..State::default() }));
        let (deciding, telling) = (Arc::clone(&state), Arc::clone(&state));
        proxy.plan(move |seen| {
            let is_refused = locked(&deciding).refuses(&seen.head);
            if is_refused { Fate::Answer(not_immutable()) } else { Fate::Retell }
        });
        proxy.teller(move |exchange| locked(&telling).tell(exchange));
        Self { proxy, state }
    }

    /// Whether the container has version-level immutability.
    pub fn set_up(&self, has_immutability: bool) {
        locked(&self.state).has_immutability = has_immutability;
    }

    /// From now on it takes policies, and forgets them.
    pub fn forget_policies(&self) {
        locked(&self.state).forgets = true;
    }

    /// Every blob by its name, with the policy that it has.
    pub fn blobs(&self) -> BTreeMap<String, Option<AzureLock>> {
        locked(&self.state).blobs.clone()
    }

    /// The requests that set a policy, of a new blob or of one that was there.
    pub fn requests(&self) -> Vec<Exchange> {
        locked(&self.state).requests.clone()
    }

    /// How many of them were about a blob that was there.
    pub fn changes(&self) -> usize {
        self.requests().iter().filter(|it| it.target.contains("comp=immutabilityPolicies")).count()
    }

    /// How many requests there were of this method.
    pub fn asked(&self, method: &str) -> usize {
        self.proxy.log().iter().filter(|seen| seen.method == method).count()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.proxy.port()
    }
}

/// Nobody knows Azure's own words.
fn not_immutable() -> Canned {
    Canned::s3("409 Conflict", "ImmutabilityNotEnabled", "The container has no version-level immutability.")
}

impl State {
    fn refuses(&self, head: &str) -> bool {
        !self.has_immutability && head.to_ascii_lowercase().contains(UNTIL)
    }

    /// The blob's name, where the address is one of a blob.
    fn name(&self, target: &str) -> Option<String> {
        let path = target.split('?').next().unwrap_or_default();
        path.strip_prefix(&self.root)?.strip_prefix('/').map(str::to_owned)
    }

    fn tell(&mut self, exchange: &Exchange) -> Option<Canned> {
        let name = self.name(&exchange.target);
        let is_good = (200..300).contains(&exchange.status);
        match (exchange.method.as_str(), name) {
            ("PUT", Some(name)) if exchange.target.contains("comp=immutabilityPolicies") => {
                self.change(exchange, &name)
            }
            ("PUT", Some(name)) if is_good && exchange.header("x-ms-blob-type").is_some() => {
                let policy = policy(exchange, "Put Blob");
                if policy.is_some() {
                    self.requests.push(exchange.clone());
                }
                self.blobs.insert(name, policy);
                None
            }
            ("HEAD", Some(name)) if is_good => {
                let policy = self.blobs.get(&name).cloned().flatten().filter(|_| !self.forgets)?;
                let told = [format!("{UNTIL}: {}", policy.until), format!("{MODE}: {}", policy.mode)];
                Some(with_headers(exchange, told))
            }
            ("HEAD", None) if is_good => {
                let name = "x-ms-immutable-storage-with-versioning-enabled";
                Some(with_headers(exchange, [format!("{name}: {}", self.has_immutability)]))
            }
            ("DELETE", Some(name)) if is_good => {
                self.blobs.remove(&name);
                None
            }
            _ => None,
        }
    }

    /// Azurite answers that it has no such operation (after it has looked at the signature).
    fn change(&mut self, exchange: &Exchange, name: &str) -> Option<Canned> {
        if exchange.status != 501 {
            return None;
        }
        self.requests.push(exchange.clone());
        let new = policy(exchange, "Set Blob Immutability Policy");
        let Some(old) = self.blobs.get_mut(name) else {
            return Some(Canned::s3("404 Not Found", "BlobNotFound", "The specified blob does not exist."));
        };
        let (Some(wanted), Some(had)) = (&new, &old) else {
            let Some(new) = new else {
                return Some(Canned::s3("400 Bad Request", "MissingRequiredHeader", "A header is missing."));
            };
            *old = Some(new.clone());
            return Some(self.answer(&new));
        };
        let ends = |lock: &AzureLock| jiff::fmt::rfc2822::parse(&lock.until).map(|it| it.timestamp());
        let is_shorter = ends(wanted).ok() < ends(had).ok();
        if had.mode == "locked" && (wanted.mode != "locked" || is_shorter) {
            let message = "This operation is not permitted as the blob is immutable due to a policy.";
            return Some(Canned::s3("409 Conflict", "BlobImmutableDueToPolicy", message));
        }
        let new = wanted.clone();
        *old = Some(new.clone());
        Some(self.answer(&new))
    }

    fn answer(&self, lock: &AzureLock) -> Canned {
        let headers = if self.forgets {
            Vec::new()
        } else {
            vec![format!("{UNTIL}: {}", lock.until), format!("{MODE}: {}", lock.mode)]
        };
        Canned { status: "200 OK", headers, body: String::new(), announced_bytes: None }
    }
}

fn policy(exchange: &Exchange, by: &'static str) -> Option<AzureLock> {
    let text = |name: &str| exchange.header(name).map(str::to_owned);
    Some(AzureLock { mode: text(MODE)?, until: text(UNTIL)?, by })
}

/// The server's answer to a `HEAD`, with more headers.
fn with_headers(exchange: &Exchange, more: impl IntoIterator<Item = String>) -> Canned {
    let is_length = |line: &&str| line.to_ascii_lowercase().starts_with("content-length:");
    let lines = || exchange.answer_head.lines().skip(1).filter(|line| !line.is_empty());
    let length = lines().find(is_length).and_then(|line| line.split(':').nth(1)?.trim().parse().ok());
    let kept = lines().filter(|line| !is_length(line)).map(str::to_owned);
    Canned {
        status: "200 OK",
        headers: kept.chain(more).collect(),
        body: String::new(),
        announced_bytes: Some(length.unwrap_or(0)),
    }
}
