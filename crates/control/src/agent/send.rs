//! Tells receivers what alerts there are, in threads of their own, so that one that hangs holds nothing up. Mail has one for
//! itself: a mail server is asked many times for one message, and may take long for each answer. `docs/agent.md`, "Alerts".
//!
//! There is no queue: what is sent is the difference between what is active and what the receiver acknowledged last.

mod mail;

use super::board::Board;
use super::streams::Tell;
use crate::{Interrupt, durable, open, probe};
use jiff::{SignedDuration, Timestamp};
use retoma_core::decide::alerts::{Alert, AlertKey};
use retoma_core::manifest::{AlertOptions, Receiver};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a receiver may take.
const LIMIT: Duration = Duration::from_secs(10);
/// From one attempt to the next.
const AGAIN: Duration = Duration::from_secs(10);
/// The same for mail: who logs in with a wrong password too often is locked out.
const MAIL_AGAIN: Duration = Duration::from_mins(1);
/// No further mail is begun in a round that has taken so long.
const MAIL_ROUND: Duration = Duration::from_mins(1);
/// How often Alertmanager hears of what lasts, and the dead man's switch of us.
const REPEAT: Duration = Duration::from_mins(1);
/// When Alertmanager takes an alert for ended of which it hears nothing any more.
const LASTS: SignedDuration = SignedDuration::from_mins(5);
/// An alert of a former agent is not said to have ended before we know.
const SETTLE: Duration = Duration::from_secs(30);
/// What receivers acknowledged, in the state folder.
const NAME: &str = "alerts.json";

/// An alert that a receiver knows of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Told {
    alert: String,
    severity: String,
    component: Option<String>,
    repository: Option<String>,
    summary: String,
    since: Timestamp,
}

impl Told {
    fn new(key: &AlertKey, alert: &Alert) -> Self {
        Self {
            alert: key.alert.clone(),
            severity: alert.severity.as_str().to_owned(),
            component: key.component.clone(),
            repository: key.repository.clone(),
            summary: alert.summary.clone(),
            since: alert.since,
        }
    }

    /// What makes it the same alert; its words may change.
    fn is_same(&self, other: &Self) -> bool {
        (&self.alert, &self.severity, &self.component, &self.repository)
            == (&other.alert, &other.severity, &other.component, &other.repository)
    }
}

/// What is new for a receiver.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    raised: Vec<Told>,
    cleared: Vec<Told>,
}

fn difference(told: &[Told], active: &[Told], may_clear: bool) -> Difference {
    let without = |some: &[Told], others: &[Told]| -> Vec<Told> {
        some.iter().filter(|one| !others.iter().any(|other| one.is_same(other))).cloned().collect()
    };
    let cleared = if may_clear { without(told, active) } else { Vec::new() };
    Difference { raised: without(active, told), cleared }
}

/// What each receiver acknowledged.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Memory {
    #[serde(default)]
    webhook: Vec<Told>,
    #[serde(default)]
    alertmanager: Vec<Told>,
    /// By address.
    #[serde(default)]
    email: BTreeMap<String, Vec<Told>>,
}

/// Who sends, to whom.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) options: AlertOptions,
    pub(super) service: String,
    pub(super) host: String,
    pub(super) folder: PathBuf,
}

/// What was tried when.
#[derive(Debug, Default)]
struct Tries {
    webhook: Option<Instant>,
    alertmanager: Option<Instant>,
    alertmanager_done: Option<Instant>,
    dead_man: Option<Instant>,
    email: BTreeMap<String, Instant>,
    is_failing: BTreeMap<String, bool>,
}

impl Sender {
    /// Sends from now on until `interrupt`.
    pub(super) fn start(self, board: Arc<Board>, interrupt: Interrupt, tell: Tell) -> Result<()> {
        let path = self.folder.join(NAME);
        let read = std::fs::read(&path).ok();
        let memory: Memory = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let shared = Arc::new(Mutex::new(memory));
        if self.options.email.is_some() {
            let sender = self.clone();
            let all = (Arc::clone(&shared), Arc::clone(&board), interrupt.clone(), Arc::clone(&tell));
            spawn("alerts-mail", move || {
                let round = |memory: &mut Memory, tries: &mut Tries, may_clear| {
                    sender.mail_round(&all.1, memory, tries, may_clear, &all.3)
                };
                sender.keep_telling(&all.0, &all.2, round, |own, memory| memory.email = own.email);
            })?;
        }
        spawn("alerts", move || {
            let round = |memory: &mut Memory, tries: &mut Tries, may_clear| {
                self.round(&board, memory, tries, may_clear, &tell)
            };
            let put = |own: Memory, memory: &mut Memory| {
                (memory.webhook, memory.alertmanager) = (own.webhook, own.alertmanager);
            };
            self.keep_telling(&shared, &interrupt, round, put);
        })
    }

    /// Goes round until `interrupt`. Nobody waits for a round: it works on what it remembers itself, and `put` takes its part of
    /// that over into what is kept.
    fn keep_telling(
        &self,
        shared: &Mutex<Memory>,
        interrupt: &Interrupt,
        round: impl Fn(&mut Memory, &mut Tries, bool) -> bool,
        put: impl Fn(Memory, &mut Memory),
    ) {
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = lock().clone();
        let (begun, mut tries) = (Instant::now(), Tries::default());
        while !interrupt.is_set() {
            if round(&mut own, &mut tries, begun.elapsed() >= SETTLE) {
                let mut memory = lock();
                put(own.clone(), &mut memory);
                let text = serde_json::to_vec(&*memory).unwrap_or_default();
                // Lost, it costs a message twice.
                durable::write(&self.folder.join(NAME), &text, durable::PRIVATE).ok();
            }
            super::pause(interrupt, Duration::from_secs(1), || false);
        }
    }

    /// One round over all receivers but mail; whether one acknowledged something new.
    fn round(
        &self,
        board: &Board,
        memory: &mut Memory,
        tries: &mut Tries,
        may_clear: bool,
        tell: &Tell,
    ) -> bool {
        let Some(active) = board.active() else { return false };
        let active: Vec<Told> = active.iter().map(|(key, alert)| Told::new(key, alert)).collect();
        let mut is_changed = false;
        let is_time = |last: Option<Instant>, pause| last.is_none_or(|last| last.elapsed() >= pause);
        if let Some(receiver) = &self.options.webhook {
            let news = difference(&memory.webhook, &active, may_clear);
            if !(news.raised.is_empty() && news.cleared.is_empty()) && is_time(tries.webhook, AGAIN) {
                tries.webhook = Some(Instant::now());
                let sent = self.webhook(receiver, &news, &active);
                if tries.note("webhook", &sent, tell) {
                    memory.webhook = after(&memory.webhook, &active, may_clear);
                    (tries.webhook, is_changed) = (None, true);
                }
            }
        }
        if let Some(receiver) = &self.options.alertmanager {
            let news = difference(&memory.alertmanager, &active, may_clear);
            let is_news = !(news.raised.is_empty() && news.cleared.is_empty());
            let is_due = is_news || (!active.is_empty() && is_time(tries.alertmanager_done, REPEAT));
            if is_due && is_time(tries.alertmanager, AGAIN) {
                tries.alertmanager = Some(Instant::now());
                let sent = self.alertmanager(receiver, &news, &active);
                if tries.note("alertmanager", &sent, tell) {
                    memory.alertmanager = after(&memory.alertmanager, &active, may_clear);
                    (tries.alertmanager, tries.alertmanager_done) = (None, Some(Instant::now()));
                    is_changed |= is_news;
                }
            }
        }
        if let Some(receiver) = self.options.dead_man.as_ref().filter(|_| board.is_healthy())
            && is_time(tries.dead_man, REPEAT)
        {
            tries.dead_man = Some(Instant::now());
            let sent = address(receiver).and_then(|url| answer(probe::agent(LIMIT).get(&url).call()));
            tries.note("dead_man", &sent, tell);
        }
        is_changed
    }

    /// One round over all addresses; whether one acknowledged something new. Who has waited longest comes first, so that an
    /// address that hangs takes its turn and no more.
    fn mail_round(
        &self,
        board: &Board,
        memory: &mut Memory,
        tries: &mut Tries,
        may_clear: bool,
        tell: &Tell,
    ) -> bool {
        let (Some(email), Some(active)) = (&self.options.email, board.active()) else { return false };
        let active: Vec<Told> = active.iter().map(|(key, alert)| Told::new(key, alert)).collect();
        let (begun, mut is_changed) = (Instant::now(), false);
        let mut addresses: Vec<&String> = email.to.iter().collect();
        addresses.sort_by_key(|to| tries.email.get(*to).copied());
        for to in addresses {
            if begun.elapsed() >= MAIL_ROUND {
                break;
            }
            let told = memory.email.get(to).map_or(&[][..], Vec::as_slice);
            let news = difference(told, &active, may_clear);
            let is_news = !(news.raised.is_empty() && news.cleared.is_empty());
            if !is_news || tries.email.get(to).is_some_and(|last| last.elapsed() < MAIL_AGAIN) {
                continue;
            }
            tries.email.insert(to.clone(), Instant::now());
            let sent = self.mail(email, to, &news, &active);
            if tries.note(&format!("email {to}"), &sent, tell) {
                memory.email.insert(to.clone(), after(told, &active, may_clear));
                tries.email.remove(to);
                is_changed = true;
            }
        }
        is_changed
    }

    fn webhook(&self, receiver: &Receiver, news: &Difference, active: &[Told]) -> Result<()> {
        let body = json!({ "schema": "retoma.alerts/1", "service": self.service, "host": self.host,
                           "raised": news.raised, "cleared": news.cleared, "active": active });
        post(&address(receiver)?, &body)
    }

    fn alertmanager(&self, receiver: &Receiver, news: &Difference, active: &[Told]) -> Result<()> {
        let now = Timestamp::now();
        let lasts = now.checked_add(LASTS).unwrap_or(now);
        let alert = |told: &Told, until: Timestamp| {
            let mut labels = json!({ "alertname": format!("retoma_{}", told.alert), "severity": told.severity,
                                     "service": self.service, "instance": self.host });
            if let (Some(component), Value::Object(map)) = (&told.component, &mut labels) {
                map.insert("component".to_owned(), json!(component));
            }
            if let (Some(repository), Value::Object(map)) = (&told.repository, &mut labels) {
                map.insert("repository".to_owned(), json!(repository));
            }
            json!({ "labels": labels, "annotations": { "summary": told.summary },
                    "startsAt": told.since.to_string(), "endsAt": until.to_string() })
        };
        let going = active.iter().map(|told| alert(told, lasts));
        let ended = news.cleared.iter().map(|told| alert(told, now));
        let all: Vec<Value> = going.chain(ended).collect();
        let url = format!("{}/api/v2/alerts", address(receiver)?.trim_end_matches('/'));
        post(&url, &json!(all))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| Error::io("a thread that sends alerts", error))
}

impl Tries {
    /// Says once that a receiver does not answer, and once that it does again.
    fn note(&mut self, name: &str, sent: &Result<()>, tell: &Tell) -> bool {
        let was_failing = self.is_failing.insert(name.to_owned(), sent.is_err()).unwrap_or(false);
        match sent {
            Err(error) if !was_failing => tell(&format!("alerts to `{name}`: {error} [{}]", error.code())),
            Ok(()) if was_failing => tell(&format!("alerts to `{name}` arrive again")),
            _ => {}
        }
        sent.is_ok()
    }
}

/// What a receiver knows when it has acknowledged.
fn after(told: &[Told], active: &[Told], may_clear: bool) -> Vec<Told> {
    let kept = if may_clear { Vec::new() } else { difference(told, active, true).cleared };
    active.iter().cloned().chain(kept).collect()
}

/// The address itself, which may hold a secret and is in no message.
fn address(receiver: &Receiver) -> Result<String> {
    match receiver {
        Receiver::Literal(url) => Ok(url.clone()),
        Receiver::Reference(reference) => Ok(open::secret(reference)?.expose().clone()),
    }
}

fn post(url: &str, body: &Value) -> Result<()> {
    let request = probe::agent(LIMIT).post(url).header("content-type", "application/json");
    answer(request.send(body.to_string()))
}

fn answer(answer: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<()> {
    let refused = |why: String| {
        Error::new(ErrorKind::Unavailable, codes::AGENT_RECEIVER, format!("the receiver {why}"))
            .with_hint("look at its log; it is tried again every 10 s")
    };
    match probe::observe(Instant::now(), answer).outcome {
        probe::Outcome::Answered(200..=299) => Ok(()),
        other => Err(refused(format!("gave `{other}`"))),
    }
}

#[cfg(test)]
mod tests;
