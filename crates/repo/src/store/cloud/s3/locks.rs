//! What S3 says of locks, and how it is asked for longer ones.

use super::super::locks::{BucketState, Held, Way, date};
use super::signed::{Ask, Signed};
use crate::store::{Key, PutMode, error};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use retoma_core::manifest::LockMode;
use retoma_core::{ErrorKind, Result};

#[async_trait]
impl Way for Signed {
    async fn bucket(&self) -> Result<BucketState> {
        let locks = setting(self, "object-lock").await?;
        let has_locks = element(&locks, "ObjectLockEnabled") == Some("Enabled");
        Ok(BucketState { has_locks, has_versions: versioning(self).await? })
    }

    async fn write(
        &self,
        key: &Key,
        data: Bytes,
        put: PutMode,
        mode: LockMode,
        end: Timestamp,
    ) -> Result<()> {
        let mut ask = Ask::put(self, key, &[], data)?
            .header("x-amz-object-lock-mode", mode_name(mode))?
            .header("x-amz-object-lock-retain-until-date", &date(end))?;
        if put == PutMode::Create {
            ask = ask.header("if-none-match", "*")?;
        }
        match self.ask(ask).await? {
            Ok(_) => Ok(()),
            Err(refused) if refused.code() == "PreconditionFailed" => Err(error::exists(&self.location, key)),
            // "Bucket is missing Object Lock Configuration"; others have other words.
            Err(refused) if refused.code() == "InvalidRequest" => Err(self.no_locks()),
            Err(refused) => Err(self.refusal(&refused)),
        }
    }

    async fn held(&self, key: &Key) -> Result<Held> {
        match self.ask(Ask::get(self, key, &[("retention", "")])).await? {
            Ok(got) => {
                let text = self.text(got, key.as_str()).await?;
                read_retention(&text).ok_or_else(|| self.unreadable(key.as_str()))
            }
            Err(refused) => match refused.code() {
                // The object has no lock; or the bucket has no object lock, so nothing in it is locked.
                "NoSuchObjectLockConfiguration"
                | "ObjectLockConfigurationNotFoundError"
                | "InvalidRequest" => Ok(Held::Free),
                // The newest version is a delete marker.
                "MethodNotAllowed" => Ok(Held::Gone),
                _ => match self.refusal(&refused) {
                    gone if gone.kind() == ErrorKind::NotFound => Ok(Held::Gone),
                    error => Err(error),
                },
            },
        }
    }

    async fn extend(&self, key: &Key, _held: Held, mode: LockMode, end: Timestamp) -> Result<()> {
        let (mode, end) = (mode_name(mode), date(end));
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode><RetainUntilDate>{end}</RetainUntilDate></Retention>"
        );
        let ask = Ask::put(self, key, &[("retention", "")], Bytes::from(body))?;
        match self.ask(ask).await? {
            Ok(_) => Ok(()),
            Err(refused) if refused.code() == "InvalidRequest" => Err(self.no_locks()),
            Err(refused) => Err(self.refusal(&refused)),
        }
    }
}

/// Whether the bucket keeps versions.
pub(super) async fn versioning(signed: &Signed) -> Result<bool> {
    Ok(element(&setting(signed, "versioning").await?, "Status") == Some("Enabled"))
}

/// A setting of the bucket, as its text; empty where there is none.
async fn setting(signed: &Signed, name: &str) -> Result<String> {
    match signed.ask(Ask::bucket(&[(name, "")])).await? {
        Ok(got) => Ok(String::from_utf8_lossy(&signed.text(got, "the bucket").await?).into_owned()),
        Err(refused) if refused.code() == "ObjectLockConfigurationNotFoundError" => Ok(String::new()),
        Err(refused) => Err(signed.refusal(&refused)),
    }
}

fn mode_name(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Compliance => "COMPLIANCE",
        LockMode::Governance => "GOVERNANCE",
    }
}

/// The text of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(value, _)| value)
}

fn read_retention(text: &[u8]) -> Option<Held> {
    let text = std::str::from_utf8(text).ok()?;
    let end = element(text, "RetainUntilDate")?.parse().ok()?;
    let mode = match element(text, "Mode")? {
        "COMPLIANCE" => LockMode::Compliance,
        "GOVERNANCE" => LockMode::Governance,
        _ => return None,
    };
    Some(Held::Until(end, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_or_refused() {
        let text = |mode: &str, end: &str| {
            format!(
                "<?xml version=\"1.0\"?><Retention xmlns=\"x\"><Mode>{mode}</Mode><RetainUntilDate>{end}</RetainUntilDate></Retention>"
            )
        };
        let end: Timestamp = "2030-01-02T03:04:05Z".parse().unwrap();
        let read = |text: String| read_retention(text.as_bytes());
        assert_eq!(
            read(text("COMPLIANCE", "2030-01-02T03:04:05Z")),
            Some(Held::Until(end, LockMode::Compliance))
        );
        assert_eq!(
            read(text("GOVERNANCE", "2030-01-02T03:04:05.000Z")),
            Some(Held::Until(end, LockMode::Governance))
        );
        for (mode, end) in [("OTHER", "2030-01-02T03:04:05Z"), ("COMPLIANCE", "soon"), ("COMPLIANCE", "")] {
            assert_eq!(read(text(mode, end)), None, "{mode} {end}");
        }
        assert_eq!(read_retention(b"<Retention/>"), None);
        assert_eq!(read_retention(b"\xff"), None);
        assert_eq!(date(end), "2030-01-02T03:04:05Z");
    }
}
