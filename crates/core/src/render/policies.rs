//! Rights in buckets: a writer, a reader and a pruner for each repository, and the rule that frees what was deleted when it is no
//! longer locked. Of S3 here, of the others in modules of their own. `docs/immutability.md`.

mod azure;
mod google;

use crate::manifest::{Manifest, Repository, Scheme};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How long old versions stay where the manifest locks nothing, in days.
const KEPT_DAYS: u32 = 30;
/// What stands above everything that no server has taken.
const NOT_RUN: &str =
    "NOT RUN against the real service: written by its documents. Read it before you run it.";
/// What nobody who works with a repository may do.
const NEVER: [&str; 9] = [
    "s3:BypassGovernanceRetention",
    "s3:DeleteBucket",
    "s3:DeleteBucketPolicy",
    "s3:DeleteObjectVersion",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketPolicy",
    "s3:PutBucketVersioning",
    "s3:PutLifecycleConfiguration",
    "s3:PutObjectLegalHold",
];

/// A file of rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name: `s3-BUCKET-policy.json`.
    pub name: String,
    /// Its contents.
    pub text: String,
}

/// Who does something with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Writer,
    Reader,
    Pruner,
}

impl Role {
    const ALL: [Self; 3] = [Self::Writer, Self::Reader, Self::Pruner];

    fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Pruner => "pruner",
        }
    }
}

/// A repository in a bucket.
struct Place<'a> {
    repository: &'a Repository,
    /// With Azure, the container.
    bucket: &'a str,
    /// Empty, or with a slash at its end.
    prefix: String,
}

/// The files for those of `repositories` that lie in buckets, for each bucket in the order of their names. Rights belong to
/// a bucket, so repositories that share one are in the same files. What is written in capitals in them, such as `ACCOUNT`, is to be
/// replaced.
pub fn files<'a>(repositories: impl Iterator<Item = &'a Repository>) -> Vec<File> {
    let mut buckets: BTreeMap<(Scheme, &str), Vec<Place<'a>>> = BTreeMap::new();
    for place in repositories.filter_map(place) {
        buckets.entry((place.repository.scheme, place.bucket)).or_default().push(place);
    }
    let files = |((scheme, bucket), places): (&(Scheme, &str), &Vec<Place<'a>>)| match scheme {
        Scheme::S3 => s3(bucket, places),
        Scheme::Gs => google::files(bucket, places),
        Scheme::Az => azure::files(bucket, places),
        Scheme::File | Scheme::Sftp => Vec::new(),
    };
    buckets.iter().flat_map(files).collect()
}

/// The manifest's repositories for which there are no rights to render: those that lie in no bucket, or whose address has
/// characters that no store takes.
pub fn without(manifest: &Manifest) -> impl Iterator<Item = &Repository> {
    manifest.repositories.iter().filter(|repository| place(repository).is_none())
}

fn s3(bucket: &str, places: &[Place<'_>]) -> Vec<File> {
    let statements: Vec<Value> = places.iter().flat_map(statements).collect();
    let rules: Vec<Value> = places.iter().map(rule).collect();
    vec![
        file(format!("s3-{bucket}-lifecycle.json"), &json!({ "Rules": rules })),
        file(
            format!("s3-{bucket}-policy.json"),
            &json!({ "Version": "2012-10-17", "Statement": statements }),
        ),
    ]
}

fn file(name: String, value: &Value) -> File {
    File { name, text: format!("{value:#}\n") }
}

fn place(repository: &Repository) -> Option<Place<'_>> {
    let rest = match repository.scheme {
        Scheme::S3 | Scheme::Gs | Scheme::Az => repository.url.split_once("://")?.1,
        Scheme::File | Scheme::Sftp => return None,
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    // They come to stand in expressions, commands and names of files.
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    if !is_plain(bucket) || bucket.starts_with(['.', '-']) || !is_plain(prefix) {
        return None;
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Some(Place { repository, bucket, prefix })
}

fn statements(place: &Place<'_>) -> Vec<Value> {
    let locks = place.repository.lock.is_some();
    let mut write = vec!["s3:GetObject", "s3:PutObject"];
    let mut look = vec!["s3:GetObject", "s3:GetObjectVersion"];
    let mut settings = vec!["s3:GetBucketVersioning"];
    if locks {
        write.extend(["s3:GetObjectRetention", "s3:PutObjectRetention"]);
        look.push("s3:GetObjectRetention");
        settings.push("s3:GetBucketObjectLockConfiguration");
    }
    let below = |name: &str| json!([format!("arn:aws:s3:::{}/{}{name}*", place.bucket, place.prefix)]);
    let bucket = json!([format!("arn:aws:s3:::{}", place.bucket)]);
    let all = Role::ALL;
    let writers = [Role::Writer, Role::Pruner];
    let mut listing = json!({ "Sid": sid(place, "List"), "Effect": "Allow", "Principal": principals(place, &all),
                              "Action": ["s3:ListBucket"], "Resource": bucket });
    let mut versions = json!({ "Sid": sid(place, "ListVersions"), "Effect": "Allow", "Principal": principals(place, &[Role::Reader]),
                               "Action": ["s3:ListBucketVersions"], "Resource": bucket });
    if !place.prefix.is_empty() {
        let condition = json!({ "StringLike": { "s3:prefix": [format!("{}*", place.prefix)] } });
        for statement in [&mut listing, &mut versions] {
            statement["Condition"] = condition.clone();
        }
    }
    vec![
        json!({ "Sid": sid(place, "Write"), "Effect": "Allow", "Principal": principals(place, &writers),
                "Action": write, "Resource": below("") }),
        json!({ "Sid": sid(place, "Unlock"), "Effect": "Allow", "Principal": principals(place, &[Role::Writer]),
                "Action": ["s3:DeleteObject"], "Resource": below("locks/") }),
        json!({ "Sid": sid(place, "Prune"), "Effect": "Allow", "Principal": principals(place, &[Role::Pruner]),
                "Action": ["s3:DeleteObject"], "Resource": below("") }),
        json!({ "Sid": sid(place, "Read"), "Effect": "Allow", "Principal": principals(place, &[Role::Reader]),
                "Action": look, "Resource": below("") }),
        listing,
        versions,
        json!({ "Sid": sid(place, "Settings"), "Effect": "Allow", "Principal": principals(place, &all),
                "Action": settings, "Resource": bucket }),
        json!({ "Sid": sid(place, "Never"), "Effect": "Deny", "Principal": principals(place, &all),
                "Action": NEVER, "Resource": [format!("arn:aws:s3:::{}", place.bucket), format!("arn:aws:s3:::{}/*", place.bucket)] }),
    ]
}

/// Only letters and digits may be in it.
fn sid(place: &Place<'_>, what: &str) -> String {
    let name: String = place.repository.name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{what}{name}")
}

fn principals(place: &Place<'_>, roles: &[Role]) -> Value {
    let arn =
        |role: &Role| format!("arn:aws:iam::ACCOUNT:user/retoma-{}-{}", place.repository.name, role.name());
    json!({ "AWS": roles.iter().map(arn).collect::<Vec<_>>() })
}

/// Old versions go when they are older than a lock lasts; what is locked stays in any case.
fn rule(place: &Place<'_>) -> Value {
    let days = place.repository.lock.map_or(KEPT_DAYS, |lock| lock.days);
    json!({
        "ID": format!("retoma-{}", place.repository.name), "Status": "Enabled", "Filter": { "Prefix": place.prefix },
        "NoncurrentVersionExpiration": { "NoncurrentDays": days },
        "Expiration": { "ExpiredObjectDeleteMarker": true },
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 7 },
    })
}
