//! What the agent's loop lets others see: metrics, health, and the alerts that are active. Whoever looks waits for nobody.

use jiff::Timestamp;
use retoma_core::decide::alerts::{Alert, AlertKey, Alerts};
use retoma_core::decide::observed::Observed;
use retoma_core::render::metrics;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When the loop has not decided for so long, it hangs.
pub const DECIDES_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Posted {
    observed: Observed,
    alerts: Alerts,
    at: Instant,
}

/// The last that the loop has posted.
#[derive(Debug, Default)]
pub struct Board(Mutex<Option<Posted>>);

impl Board {
    fn posted(&self) -> MutexGuard<'_, Option<Posted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop has decided, and this is what it knows.
    pub(super) fn post(&self, observed: Observed, alerts: Alerts) {
        *self.posted() = Some(Posted { observed, alerts, at: Instant::now() });
    }

    /// The answer to a scrape; `None` before the loop has decided for the first time.
    pub fn metrics(&self, now: Timestamp) -> Option<String> {
        self.posted().as_ref().map(|posted| metrics::text(&posted.observed, &posted.alerts, now))
    }

    /// Whether the loop decides.
    pub fn is_alive(&self) -> bool {
        self.posted().as_ref().is_some_and(|posted| posted.at.elapsed() < DECIDES_EVERY)
    }

    /// Whether the loop decides and no critical alert is active.
    pub(super) fn is_healthy(&self) -> bool {
        self.is_alive() && self.posted().as_ref().is_some_and(|posted| posted.alerts.is_healthy())
    }

    /// The active alerts; `None` before the loop has decided for the first time.
    pub(super) fn active(&self) -> Option<BTreeMap<AlertKey, Alert>> {
        let posted = self.posted();
        let active = posted.as_ref()?.alerts.active();
        Some(active.map(|(key, alert)| (key.clone(), alert.clone())).collect())
    }

    /// What `/healthz` says besides its status.
    pub fn health(&self) -> Value {
        let is_alive = self.is_alive();
        let active = self.active().unwrap_or_default();
        let alerts: Vec<Value> = active.iter().map(|(key, alert)| object(key, alert)).collect();
        json!({ "schema": "retoma.health/1", "alive": is_alive, "alerts": alerts })
    }
}

/// An alert as JSON.
pub(super) fn object(key: &AlertKey, alert: &Alert) -> Value {
    json!({ "alert": key.alert, "severity": alert.severity.as_str(), "component": key.component,
            "repository": key.repository, "summary": alert.summary, "since": alert.since.to_string() })
}
