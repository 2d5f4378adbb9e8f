//! Object retention before `fake-gcs-server`, which enforces none.
//!
//! Objects go to the real server. What Google's documents say of retention is kept and told here, and every request that tells of
//! it is noted. Nobody has compared this with Google.

use super::GcsServer;
use crate::acceptor::locked;
use crate::{Canned, Exchange, Fate, HttpProxy};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The retention of an object, and of which kind the request was that set it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleLock {
    /// `Locked` or `Unlocked`.
    pub mode: String,
    /// The text that was sent.
    pub until: String,
    /// `POST` for the one that wrote the object, `PATCH` for one that came later.
    pub by: String,
}

/// How the bucket is, and what lies in it.
#[derive(Debug, Default)]
struct State {
    has_retention: bool,
    has_versions: bool,
    /// Takes retention, and forgets it.
    forgets: bool,
    /// Every object that was written, and its lock.
    objects: BTreeMap<String, Option<GoogleLock>>,
    /// Requests with a retention that were not taken.
    refused: usize,
}

/// The way to a server whose bucket has object retention.
#[derive(Debug)]
pub struct RetainingGoogle {
    proxy: HttpProxy,
    state: Arc<Mutex<State>>,
}

impl RetainingGoogle {
    /// In front of `server`; its buckets have object retention and versions.
    pub fn before(server: &GcsServer) -> Self {
        let proxy = HttpProxy::start(server.port());
        let state =
            Arc::new(Mutex::new(State { has_retention: true, has_versions: true, ..State::default() }));
        let (deciding, telling) = (Arc::clone(&state), Arc::clone(&state));
        proxy.plan(move |seen| match locked(&deciding).refusal(&seen.method, &seen.target) {
            Some(refusal) => Fate::Answer(refusal),
            None => Fate::Retell,
        });
        proxy.teller(move |exchange| locked(&telling).tell(exchange));
        Self { proxy, state }
    }

    /// Whether buckets have object retention, and versions.
    pub fn set_up(&self, has_retention: bool, has_versions: bool) {
        let mut state = locked(&self.state);
        (state.has_retention, state.has_versions) = (has_retention, has_versions);
    }

    /// From now on it takes retention, and forgets it.
    pub fn forget_retention(&self) {
        locked(&self.state).forgets = true;
    }

    /// Every object by its name, with the lock that it has.
    pub fn objects(&self) -> BTreeMap<String, Option<GoogleLock>> {
        locked(&self.state).objects.clone()
    }

    /// How often a retention was refused.
    pub fn refused(&self) -> usize {
        locked(&self.state).refused
    }

    /// The requests that changed the retention of an object that was there, as method and address.
    pub fn changes(&self) -> Vec<String> {
        let log = self.proxy.log();
        log.iter().filter(|seen| seen.method == "PATCH").map(|seen| seen.target.clone()).collect()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.proxy.port()
    }
}

fn refusal(status: &'static str, reason: &str, message: &str) -> Canned {
    let code: u16 = status.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or_default();
    let error = json!({ "error": { "code": code, "message": message, "errors": [{ "reason": reason }] } });
    Canned::json(status, error.to_string())
}

/// The name in `/storage/v1/b/BUCKET/o/NAME`.
fn object(target: &str) -> Option<String> {
    let path = target.split('?').next().unwrap_or_default();
    let (_, name) = path.strip_prefix("/storage/v1/b/")?.split_once("/o/")?;
    Some(name.replace("%2F", "/"))
}

/// The first part of an upload: what it says about the object.
fn about(body: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("\r\n\r\n")?;
    serde_json::from_str(rest.split("\r\n").next()?).ok()
}

impl State {
    /// What is refused before the server sees it: a lock where there are none; without versions, the deletion of what is locked.
    fn refusal(&mut self, method: &str, target: &str) -> Option<Canned> {
        let asks_for_a_lock = method == "PATCH" || (method == "POST" && target.contains("retention"));
        if asks_for_a_lock && !self.has_retention {
            self.refused += 1;
            let message = "Object retention is not enabled on the bucket";
            return Some(refusal("400 Bad Request", "invalid", message));
        }
        let name = object(target).filter(|_| method == "DELETE" && !self.has_versions)?;
        let lock = self.objects.get(&name)?.as_ref()?;
        let message = format!("Object 'b/{name}' is subject to object retention until {}", lock.until);
        Some(refusal("403 Forbidden", "retentionPolicyNotMet", &message))
    }

    fn tell(&mut self, exchange: &Exchange) -> Option<Canned> {
        let path = exchange.target.split('?').next().unwrap_or_default();
        match exchange.method.as_str() {
            "POST" if path.starts_with("/upload/") => self.upload(exchange),
            "PATCH" => self.patch(exchange),
            "GET" if exchange.target.contains("fields=objectRetention") => Some(self.bucket()),
            "GET" if exchange.target.contains("retention") && exchange.status == 200 => {
                let name = object(&exchange.target)?;
                Some(self.shown(&name))
            }
            "DELETE" if exchange.status < 300 => {
                self.objects.remove(&object(&exchange.target)?);
                None
            }
            _ => None,
        }
    }

    fn bucket(&self) -> Canned {
        let mut about = json!({ "versioning": { "enabled": self.has_versions } });
        if self.has_retention {
            about["objectRetention"] = json!({ "mode": "Enabled" });
        }
        Canned::json("200 OK", about.to_string())
    }

    fn shown(&self, name: &str) -> Canned {
        let mut about = json!({ "name": name });
        if let Some(lock) = self.objects.get(name).and_then(Option::as_ref).filter(|_| !self.forgets) {
            // Google tells thousandths.
            let until = lock.until.replace('Z', ".000Z");
            about["retention"] = json!({ "mode": lock.mode, "retainUntilTime": until });
        }
        Canned::json("200 OK", about.to_string())
    }

    fn upload(&mut self, exchange: &Exchange) -> Option<Canned> {
        let about = about(&exchange.body)?;
        let name = about["name"].as_str()?.to_owned();
        if exchange.status != 200 {
            return None;
        }
        let lock = lock(&about["retention"], "POST");
        self.objects.insert(name.clone(), lock);
        Some(self.shown(&name))
    }

    fn patch(&mut self, exchange: &Exchange) -> Option<Canned> {
        let name = object(&exchange.target)?;
        let about: Value = serde_json::from_slice(&exchange.body).ok()?;
        let Some(new) = lock(&about["retention"], "PATCH") else {
            return Some(refusal("400 Bad Request", "invalid", "no retention that can be read"));
        };
        let Some(object) = self.objects.get_mut(&name) else {
            return Some(refusal("404 Not Found", "notFound", "No such object: b/x"));
        };
        if let Some(old) = object {
            let overrides = exchange.target.contains("overrideUnlockedRetention=true");
            let is_weaker = old.mode == "Locked" && new.mode != "Locked";
            let ends = |lock: &GoogleLock| lock.until.parse::<Timestamp>().unwrap_or(Timestamp::MIN);
            let is_shorter = ends(&new) < ends(old);
            if is_weaker || is_shorter || (old.mode != new.mode && !overrides) {
                self.refused += 1;
                let message = format!("Object 'b/{name}' is subject to object retention until {}", old.until);
                return Some(refusal("403 Forbidden", "retentionPolicyNotMet", &message));
            }
        }
        *object = Some(new);
        Some(self.shown(&name))
    }
}

fn lock(retention: &Value, by: &str) -> Option<GoogleLock> {
    let text = |name: &str| retention[name].as_str().map(str::to_owned);
    Some(GoogleLock { mode: text("mode")?, until: text("retainUntilTime")?, by: by.to_owned() })
}
