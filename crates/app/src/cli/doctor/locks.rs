//! Whether what the manifest wants locked is locked, and until when.

use super::Findings;
use jiff::Timestamp;
use retoma_core::manifest;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, error::codes};
use retoma_repo::Repository;
use retoma_repo::ops::renew;
use retoma_repo::store::cloud::{BucketState, Locks};

/// So many packs and other objects are looked at, beside config, keys, index and snapshots.
const OTHERS: usize = 2000;

pub(super) fn check(
    findings: &mut Findings,
    subject: &str,
    described: &manifest::Repository,
    repository: Option<&Repository>,
) {
    let locks = match retoma_control::open::locks(described) {
        Ok(Some(locks)) => locks,
        Ok(None) => return,
        Err(error) => return findings.bad(subject, &error),
    };
    let Words { locks: name, rights, is_proven } = Words::of(described.scheme);
    if !is_proven {
        findings.warn(
            subject,
            format!("{name} was not run against the real service: only the requests are tested"),
            "try with the owner's credentials whether what is locked can be deleted, before you rely on it",
        );
    }
    match locks.bucket() {
        Ok(BucketState { has_locks: true, has_versions: true }) => {
            findings.good(subject, format!("its bucket has {name} and keeps versions"));
        }
        Ok(_) => findings.bad(subject, &no_locks(name)),
        Err(error) if error.kind() == ErrorKind::Unauthorized => {
            findings.warn(
                subject,
                format!("these credentials may not ask whether its bucket has {name} and keeps versions"),
                format!("allow {rights}; `retoma plan --policies` renders what is needed"),
            );
        }
        Err(error) => return findings.bad(subject, &error),
    }
    if let Some(repository) = repository {
        check_dates(findings, subject, &locks, repository);
    }
}

/// How a provider names these things.
struct Words {
    /// Locks of objects.
    locks: &'static str,
    /// What one must be allowed to ask whether a bucket has them.
    rights: &'static str,
    /// Our requests were run against a server that enforces them.
    is_proven: bool,
}

impl Words {
    fn of(scheme: manifest::Scheme) -> Self {
        match scheme {
            manifest::Scheme::Gs => {
                Self { locks: "object retention", rights: "`storage.buckets.get`", is_proven: false }
            }
            manifest::Scheme::Az => Self {
                locks: "version-level immutability",
                rights: "`Get Container Properties`, which a shared access signature of a container cannot",
                is_proven: false,
            },
            _ => Self {
                locks: "object lock",
                rights: "`s3:GetBucketObjectLockConfiguration` and `s3:GetBucketVersioning`",
                is_proven: true,
            },
        }
    }
}

fn no_locks(name: &str) -> Error {
    let message = format!("its bucket has no {name}, or keeps no versions");
    Error::new(ErrorKind::Invalid, codes::STORE_NO_LOCKS, message).with_hint(format!(
        "make a bucket with {name} and versions, which some providers allow only when it is made, or remove `lock_days` from the \
         manifest"
    ))
}

fn check_dates(findings: &mut Findings, subject: &str, locks: &Locks, repository: &Repository) {
    let found = match renew::examine(repository, locks, OTHERS) {
        Ok(found) => found,
        Err(error) => return findings.bad(subject, &error),
    };
    let looked = if found.looked_at < found.objects {
        format!("of the {} oldest of {} objects", found.looked_at, found.objects)
    } else {
        format!("of {}", counted(found.objects, "object", "objects"))
    };
    let fix = "run `retoma renew --yes` once a day; the agent does";
    if found.free > 0 {
        findings.warn(subject, format!("{looked}, {} not locked", counted(found.free, "is", "are")), fix);
    }
    if found.governed > 0 && locks.lock().mode == manifest::LockMode::Compliance {
        findings.warn(
            subject,
            format!(
                "{looked}, {} locked in governance mode, which some may take away",
                counted(found.governed, "is", "are")
            ),
            "let `retoma renew` lock them in compliance mode when they are due",
        );
    }
    let Some(soonest) = found.soonest else { return };
    let days = (soonest.as_second() - Timestamp::now().as_second()) / 86_400;
    let text = format!("the first lock {looked} ends at {}", soonest.strftime("%Y-%m-%dT%H:%M:%SZ"));
    // A renewal leaves at least so much; a day may pass until the next.
    if days < i64::from(locks.lock().days) {
        findings.warn(
            subject,
            format!("{text}, in less than the {} days that the manifest promises", locks.lock().days),
            fix,
        );
    } else {
        findings.good(subject, text);
    }
}
