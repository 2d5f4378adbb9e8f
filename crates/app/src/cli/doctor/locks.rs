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
    match locks.bucket() {
        Ok(BucketState { has_locks: true, has_versions: true }) => {
            findings.good(subject, "its bucket has object lock and keeps versions");
        }
        Ok(_) => findings.bad(subject, &no_locks()),
        Err(error) if error.kind() == ErrorKind::Unauthorized => {
            findings.warn(
                subject,
                "these credentials may not ask whether its bucket has object lock and keeps versions",
                "allow `s3:GetBucketObjectLockConfiguration` and `s3:GetBucketVersioning`, as `retoma plan --policies` does",
            );
        }
        Err(error) => return findings.bad(subject, &error),
    }
    if let Some(repository) = repository {
        check_dates(findings, subject, &locks, repository);
    }
}

fn no_locks() -> Error {
    Error::new(ErrorKind::Invalid, codes::STORE_NO_LOCKS, "its bucket has no object lock, or keeps no versions").with_hint(
        "make a bucket with object lock, which some providers allow only when it is made, or remove `lock_days` from the manifest",
    )
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
