//! Locks at Google: the retention of an object (`retention` of its metadata), in a bucket that has object retention.
//!
//! It is part of the very request that writes an object, and of what Google answers to it: an answer without it is no lock.

use super::{Answered, GcsStore, Refused, wire};
use crate::store::cloud::answer;
use crate::store::cloud::locks::{BucketState, Held, Way, date, no_locks, not_locked};
use crate::store::{Key, PutMode};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use object_store::client::HttpResponse;
use reqwest::StatusCode;
use retoma_core::manifest::LockMode;
use retoma_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// Until when an object is kept, and who may change that.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Retention {
    mode: Mode,
    retain_until_time: Timestamp,
}

/// Google's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Mode {
    Locked,
    Unlocked,
}

impl Retention {
    pub(super) fn new(mode: LockMode, end: Timestamp) -> Self {
        let mode = match mode {
            LockMode::Compliance => Mode::Locked,
            LockMode::Governance => Mode::Unlocked,
        };
        Self { mode, retain_until_time: end }
    }

    /// As it is sent, in whole seconds.
    pub(super) fn json(&self) -> Value {
        let mode = match self.mode {
            Mode::Locked => "Locked",
            Mode::Unlocked => "Unlocked",
        };
        json!({ "mode": mode, "retainUntilTime": date(self.retain_until_time) })
    }

    fn held(&self) -> Held {
        let mode = match self.mode {
            Mode::Locked => LockMode::Compliance,
            Mode::Unlocked => LockMode::Governance,
        };
        Held::Until(self.retain_until_time, mode)
    }
}

/// An object with its retention, where it has one.
#[derive(Debug, Deserialize)]
struct About {
    name: String,
    retention: Option<Retention>,
}

impl About {
    /// `None` for what is nothing about the object of this name.
    fn held(text: &[u8], name: &str) -> Option<Held> {
        let about: Self = serde_json::from_slice(text).ok()?;
        (about.name == name).then(|| about.retention.map_or(Held::Free, |retention| retention.held()))
    }
}

/// What a bucket says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bucket {
    object_retention: Setting,
    versioning: Setting,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Setting {
    mode: Option<String>,
    enabled: Option<bool>,
}

impl Bucket {
    fn state(text: &[u8]) -> Option<BucketState> {
        let bucket: Self = serde_json::from_slice(text).ok()?;
        Some(BucketState {
            has_locks: bucket.object_retention.mode.as_deref() == Some("Enabled"),
            has_versions: bucket.versioning.enabled == Some(true),
        })
    }
}

impl GcsStore {
    /// The answer must show the lock.
    async fn must_hold(&self, key: &Key, got: HttpResponse, mode: LockMode, end: Timestamp) -> Result<()> {
        match self.said(key, got).await? {
            held if held.covers(mode, end) => Ok(()),
            _ => Err(not_locked(&self.location, key)),
        }
    }

    async fn said(&self, key: &Key, got: HttpResponse) -> Result<Held> {
        let text = self.body(got, key.as_str(), wire::PAGE_LIMIT_BYTES).await?;
        About::held(&text, &self.wire.name(key)).ok_or_else(|| self.unreadable(key.as_str()))
    }

    /// The reasons for which Google refuses a request that it cannot make sense of are words for people: the bucket itself says
    /// whether it takes locks.
    async fn refused_lock(&self, key: &Key, refused: &Refused) -> Error {
        if refused.status != StatusCode::BAD_REQUEST {
            return self.refusal(key.as_str(), refused);
        }
        match self.bucket().await {
            Ok(state) if state.has_locks => self.refusal(key.as_str(), refused),
            Err(error) if error.kind() != ErrorKind::Unauthorized => error,
            Ok(_) | Err(_) => no_locks(&self.location, &refused.said),
        }
    }
}

#[async_trait]
impl Way for GcsStore {
    async fn bucket(&self) -> Result<BucketState> {
        match self.ask(self.wire.bucket()?, "the bucket").await? {
            Answered::Yes(got) => {
                let text = self.body(got, "the bucket", wire::PAGE_LIMIT_BYTES).await?;
                Bucket::state(&text).ok_or_else(|| self.unreadable("the bucket"))
            }
            Answered::Missing(_) => Err(answer::no_bucket(&self.location)),
        }
    }

    async fn write(
        &self,
        key: &Key,
        data: Bytes,
        put: PutMode,
        mode: LockMode,
        end: Timestamp,
    ) -> Result<()> {
        let put = self.wire.put(key, data, put, Some(&Retention::new(mode, end)))?;
        match self.send(put, key.as_str()).await? {
            Ok(got) => self.must_hold(key, got, mode, end).await,
            Err(Refused { status: StatusCode::NOT_FOUND, .. }) => Err(answer::no_bucket(&self.location)),
            Err(refused) => Err(self.refused_lock(key, &refused).await),
        }
    }

    async fn held(&self, key: &Key) -> Result<Held> {
        match self.object(key, self.wire.retention(key)?).await {
            Ok(got) => self.said(key, got).await,
            Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(Held::Gone),
            Err(error) => Err(error),
        }
    }

    async fn extend(&self, key: &Key, held: Held, mode: LockMode, end: Timestamp) -> Result<()> {
        let is_made_stronger = matches!(held, Held::Until(_, its) if its != mode);
        let patch = self.wire.retain(key, &Retention::new(mode, end), is_made_stronger)?;
        match self.send(patch, key.as_str()).await? {
            Ok(got) => self.must_hold(key, got, mode, end).await,
            Err(Refused { status: StatusCode::NOT_FOUND, said }) => Err(self.missing(key, &said).await),
            Err(refused) => Err(self.refused_lock(key, &refused).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_retention_is_read_or_refused() {
        let held = |retention: &str| {
            About::held(format!(r#"{{"name":"z/config"{retention}}}"#).as_bytes(), "z/config")
        };
        let until = |mode: &str, time: &str| {
            held(&format!(r#","retention":{{"mode":"{mode}","retainUntilTime":"{time}"}}"#))
        };
        let end = at("2030-01-02T03:04:05Z");
        assert_eq!(until("Locked", "2030-01-02T03:04:05Z"), Some(Held::Until(end, LockMode::Compliance)));
        assert_eq!(
            until("Unlocked", "2030-01-02T04:04:05.000+01:00"),
            Some(Held::Until(end, LockMode::Governance))
        );
        assert_eq!(held(""), Some(Held::Free));
        assert_eq!(held(r#","retention":null"#), Some(Held::Free));
        for (mode, time) in [
            ("locked", "2030-01-02T03:04:05Z"),
            ("", "2030-01-02T03:04:05Z"),
            ("Locked", "soon"),
            ("Locked", ""),
        ] {
            assert_eq!(until(mode, time), None, "{mode} {time}");
        }
        assert_eq!(held(r#","retention":{}"#), None, "not taken for no lock");
        assert_eq!(held(r#","retention":{"mode":"Locked"}"#), None);
        assert_eq!(About::held(br#"{"name":"z/other"}"#, "z/config"), None, "another object's");
        for text in ["", "null", "[]", "{}", "\u{0}"] {
            assert_eq!(About::held(text.as_bytes(), "z/config"), None, "{text}");
        }
    }

    #[test]
    fn a_bucket_has_what_it_says_and_nothing_else() {
        let state =
            |text: &str| Bucket::state(text.as_bytes()).map(|state| (state.has_locks, state.has_versions));
        assert_eq!(
            state(r#"{"objectRetention":{"mode":"Enabled"},"versioning":{"enabled":true}}"#),
            Some((true, true))
        );
        assert_eq!(state(r#"{"objectRetention":{"mode":"Enabled"}}"#), Some((true, false)));
        assert_eq!(
            state(r#"{"objectRetention":{"mode":"Disabled"},"versioning":{"enabled":false}}"#),
            Some((false, false))
        );
        assert_eq!(state("{}"), Some((false, false)));
        for text in ["", "null", r#"{"versioning":1}"#, r#"{"objectRetention":{"mode":true}}"#] {
            assert_eq!(state(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_retention_is_read_as_it_was_sent(second in 0i64..4_000_000_000, nanosecond in 0i32..1_000_000_000, is_compliance: bool) {
            let end = Timestamp::new(second, nanosecond).unwrap();
            let mode = if is_compliance { LockMode::Compliance } else { LockMode::Governance };
            let sent = json!({ "name": "x", "retention": Retention::new(mode, end).json() }).to_string();
            let held = About::held(sent.as_bytes(), "x");
            prop_assert_eq!(held, Some(Held::Until(Timestamp::from_second(second).unwrap(), mode)));
            prop_assert!(held.unwrap().covers(mode, end));
        }

        #[test]
        fn whatever_is_said_is_read_or_refused(text in "\\PC{0,80}") {
            let _any = (About::held(text.as_bytes(), "x"), Bucket::state(text.as_bytes()));
        }
    }
}
