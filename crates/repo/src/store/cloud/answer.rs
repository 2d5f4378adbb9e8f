//! Turns what a provider answered, or what the `object_store` crate tells of it, into our typed errors.
//!
//! The crate's own words are dropped: they hold URLs and times. What counts are the HTTP status, the provider's code and
//! message (which `http.rs` cut out), or the deepest reason of a connection that failed.

use crate::store::error;
use object_store::Error as Remote;
use object_store::client::{HttpError, HttpErrorKind};
use reqwest::StatusCode;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind};
use std::error::Error as StdError;
use std::fmt::Display;

/// What stands before the status in the crate's words.
const STATUS: &str = "non-2xx status code: ";
/// The addresses at which machines are asked for their role's credentials begin with this.
const METADATA: &str = "http://169.254.";

/// What is known of a failed call.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// The HTTP status, when there was an answer.
    status: Option<u16>,
    /// The provider's code, as in `AccessDenied`.
    code: String,
    /// What is shown to people.
    text: String,
    /// The machine's metadata service was asked, not the store.
    about_credentials: bool,
    /// Nothing came for too long.
    is_late: bool,
}

impl Answer {
    fn read(source: &Remote) -> Self {
        let mut answer = Self::default();
        let mut link: Option<&(dyn StdError + 'static)> = Some(source);
        while let Some(at) = link {
            let shown = at.to_string();
            answer.about_credentials |= shown.contains(METADATA);
            if let Some((_, said)) = shown.split_once(STATUS) {
                answer.status = said.get(..3).and_then(|digits| digits.parse().ok());
                code(said).clone_into(&mut answer.code);
                said.trim_end_matches([':', ' ']).clone_into(&mut answer.text);
                return answer;
            }
            if let Some(failure) = at.downcast_ref::<HttpError>() {
                answer.text = deepest(failure);
                answer.is_late = failure.kind() == HttpErrorKind::Timeout;
                return answer;
            }
            link = at.source();
        }
        if source.to_string().contains("redirect") {
            answer.status = Some(301);
            "it lies in another region".clone_into(&mut answer.text);
        }
        answer
    }
}

/// `403 Forbidden: AccessDenied: Access Denied.` → `AccessDenied`.
fn code(said: &str) -> &str {
    said.split(": ").nth(1).unwrap_or_default()
}

fn deepest(failure: &HttpError) -> String {
    let mut at: &(dyn StdError + 'static) = failure;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// The error about `what` (an object or folder) in the store at `location`.
pub(in crate::store) fn remote(location: &str, what: impl Display, source: &Remote) -> Error {
    let answer = Answer::read(source);
    let failed = by_code(location, &answer).or_else(|| by_variant(location, &what, source, &answer));
    failed.unwrap_or_else(|| by_status(location, &what, &answer))
}

/// The error about `what` for an answer with `status`; `said` is its code and message, as `http.rs` cut them out.
pub(super) fn refusal(location: &str, what: &str, status: StatusCode, said: &str) -> Error {
    let answer = Answer {
        status: Some(status.as_u16()),
        code: said.split(": ").next().unwrap_or_default().to_owned(),
        text: format!("{status}: {said}").trim_end_matches([':', ' ']).to_owned(),
        ..Answer::default()
    };
    by_code(location, &answer).unwrap_or_else(|| by_status(location, &what, &answer))
}

/// The error about `what` when no answer came, or not all of it.
pub(super) fn no_answer(location: &str, what: &str, failure: &HttpError) -> Error {
    let is_late = failure.kind() == HttpErrorKind::Timeout;
    unavailable(location, what, &Answer { text: deepest(failure), is_late, ..Answer::default() })
}

/// The error when an answer hardly moves.
pub(in crate::store) fn slow(location: &str, what: impl Display) -> Error {
    let message = format!("`{location}` hardly answers: `{what}` comes too slowly");
    Error::new(ErrorKind::Unavailable, codes::STORE_TIMEOUT, message)
        .with_hint("check the network between here and the store")
}

/// An answer that makes no sense.
pub(super) fn unreadable(location: &str, what: &str) -> Error {
    let message = format!("`{location}` gave an answer about `{what}` that cannot be read");
    Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, message)
}

/// The bucket is missing.
pub(super) fn no_bucket(location: &str) -> Error {
    let message = format!("the bucket of `{location}` does not exist");
    Error::new(ErrorKind::Invalid, codes::STORE_BUCKET, message).with_hint(
        "create it first, as its owner wants it (region, lock, access), or correct the name or the endpoint",
    )
}

/// A token that cannot be sent.
pub(super) fn no_token(location: &str) -> Error {
    let message = format!("the token for `{location}` has characters that no token has");
    Error::new(ErrorKind::Unauthorized, codes::STORE_DENIED, message).with_hint("check `GOOGLE_BEARER_TOKEN`")
}

/// What the provider's own code, or the lack of an answer, says for sure.
fn by_code(location: &str, answer: &Answer) -> Option<Error> {
    let denied = |why: &str, hint: &'static str| {
        let message = format!("`{location}` refused the credentials: {why} (`{}`)", answer.text);
        Some(Error::new(ErrorKind::Unauthorized, codes::STORE_DENIED, message).with_hint(hint))
    };
    if answer.about_credentials {
        let message = format!(
            "there are no credentials for `{location}`, and this machine has no role that gives them"
        );
        return Some(Error::new(ErrorKind::Unauthorized, codes::STORE_DENIED, message).with_hint(
            "set the provider's variables (`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, …; see docs/stores.md)",
        ));
    }
    match answer.code.as_str() {
        "NoSuchBucket" | "ContainerNotFound" => Some(no_bucket(location)),
        "RequestTimeTooSkewed" => denied(
            "this machine's clock is wrong",
            "set the clock (`timedatectl set-ntp true`): requests are signed with the time",
        ),
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => denied(
            "they have expired",
            "renew them: `AWS_SESSION_TOKEN` and its keys live for hours; a role renews by itself",
        ),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "AuthenticationFailed"
        | "authError"
        | "invalid_grant" => denied(
            "key or signature is wrong",
            "check the key and its secret, for this very endpoint, and the machine's clock; an access by SAS may have \
             expired",
        ),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            Some(other_region(location, answer))
        }
        _ if answer.status == Some(301) => Some(other_region(location, answer)),
        "QuotaExceeded"
        | "quotaExceeded"
        | "InsufficientStorage"
        | "XMinioStorageFull"
        | "EntityTooLarge" => Some(full(location, answer)),
        // With 403, too.
        "rateLimitExceeded" | "userRateLimitExceeded" => {
            Some(unavailable(location, "too many requests", answer))
        }
        "ConditionalRequestConflict" | "OperationAborted" => {
            // Another write of this name is under way, and may still fail: neither we nor it has won.
            Some(unavailable(location, "another write", answer))
        }
        "BlobImmutableDueToPolicy"
        | "LeaseIdMissing"
        | "ObjectUnderRetention"
        | "retentionPolicyNotMet"
        | "objectUnderActiveHold" => {
            let message = format!("`{location}` does not let go of what is locked (`{}`)", answer.text);
            Some(
                Error::new(ErrorKind::Unauthorized, codes::STORE_DENIED, message)
                    .with_hint(
                        "wait until the lock ends; in a bucket that keeps versions a delete goes through, and what is locked stays \
                         as an old version",
                    ),
            )
        }
        _ => None,
    }
}

fn by_variant(location: &str, what: &impl Display, source: &Remote, answer: &Answer) -> Option<Error> {
    match source {
        Remote::NotFound { .. } => Some(error::not_found(location, what)),
        Remote::AlreadyExists { .. } | Remote::Precondition { .. } => Some(error::exists(location, what)),
        Remote::PermissionDenied { .. } | Remote::Unauthenticated { .. } => {
            Some(refused(location, what, answer))
        }
        Remote::InvalidPath { .. } => Some(error::bad_name(&what.to_string())),
        Remote::NotSupported { .. }
        | Remote::NotImplemented { .. }
        | Remote::UnknownConfigurationKey { .. } => Some(unsupported(location, what, answer)),
        _ => None,
    }
}

/// A listing's errors come without a variant.
fn by_status(location: &str, what: &impl Display, answer: &Answer) -> Error {
    match answer.status {
        Some(401 | 403) => refused(location, what, answer),
        Some(404) => error::not_found(location, what),
        Some(412) => error::exists(location, what),
        Some(405 | 501) => unsupported(location, what, answer),
        Some(413 | 507) => full(location, answer),
        _ => unavailable(location, what, answer),
    }
}

fn unavailable(location: &str, what: impl Display, answer: &Answer) -> Error {
    let message = match (answer.status, answer.text.as_str()) {
        (_, "") => format!("`{location}` failed on `{what}`"),
        (None, text) => format!("`{location}` does not answer: `{text}`"),
        (Some(_), text) => format!("`{location}` failed on `{what}`: `{text}`"),
    };
    let code = if answer.is_late { codes::STORE_TIMEOUT } else { codes::STORE_UNAVAILABLE };
    let failed = Error::new(ErrorKind::Unavailable, code, message);
    match answer.status {
        None if !answer.text.is_empty() => failed.with_hint(
            "check the network and the endpoint (`AWS_ENDPOINT_URL`, `AZURE_STORAGE_ENDPOINT`, `GOOGLE_BASE_URL`); plain \
             `http://` needs `AWS_ALLOW_HTTP=true`, `AZURE_ALLOW_HTTP=true` or `GOOGLE_ALLOW_HTTP=true`",
        ),
        _ => failed,
    }
}

fn refused(location: &str, what: impl Display, answer: &Answer) -> Error {
    let message = match answer.text.as_str() {
        "" => format!("`{location}` refused access to `{what}`"),
        text => format!("`{location}` refused access to `{what}`: `{text}`"),
    };
    Error::new(ErrorKind::Unauthorized, codes::STORE_DENIED, message)
        .with_hint("check the credentials and what they allow in this bucket and prefix")
}

fn unsupported(location: &str, what: impl Display, answer: &Answer) -> Error {
    let message = format!("`{location}` cannot do what was asked for on `{what}`: `{}`", answer.text);
    Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message)
}

fn full(location: &str, answer: &Answer) -> Error {
    let message = format!("`{location}` has no room: `{}`", answer.text);
    Error::new(ErrorKind::Exhausted, codes::STORE_FULL, message)
        .with_hint("raise the quota, or remove old snapshots with `retoma forget` and `retoma prune`")
}

fn other_region(location: &str, answer: &Answer) -> Error {
    let message = format!("`{location}` does not lie in the region that was asked: `{}`", answer.text);
    Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message)
        .with_hint("set `AWS_REGION` to the bucket's region")
}

#[cfg(test)]
mod tests {
    mod words;

    use super::*;

    const CRATE: &str = "Error performing PUT http://127.0.0.1/b/x?secret in 2ms - Server returned";

    fn generic(said: &str) -> Error {
        let source = format!("{CRATE} {STATUS}{said}");
        remote("s3://b/p", "data/x", &Remote::Generic { store: "S3", source: source.into() })
    }

    #[test]
    fn what_a_provider_answers_has_the_kind_that_says_what_to_do() {
        use ErrorKind::{Exhausted, Invalid, NotFound, Unauthorized, Unavailable, Unsupported};
        let expected = [
            ("403 Forbidden: AccessDenied: No.", Unauthorized, codes::STORE_DENIED, "allow"),
            ("403 Forbidden: RequestTimeTooSkewed: Late.", Unauthorized, codes::STORE_DENIED, "clock"),
            ("400 Bad Request: ExpiredToken: Old.", Unauthorized, codes::STORE_DENIED, "renew"),
            ("403 Forbidden: SignatureDoesNotMatch: No.", Unauthorized, codes::STORE_DENIED, "secret"),
            ("404 Not Found: NoSuchBucket: None.", Invalid, codes::STORE_BUCKET, "create it"),
            ("404 Not Found: ContainerNotFound", Invalid, codes::STORE_BUCKET, "create it"),
            ("404 Not Found: ", NotFound, codes::OBJECT_NOT_FOUND, ""),
            ("409 Conflict: ConditionalRequestConflict: Two.", Unavailable, codes::STORE_UNAVAILABLE, ""),
            ("429 Too Many Requests: ", Unavailable, codes::STORE_UNAVAILABLE, ""),
            ("503 Service Unavailable: SlowDown: Slow.", Unavailable, codes::STORE_UNAVAILABLE, ""),
            ("500 Internal Server Error: ", Unavailable, codes::STORE_UNAVAILABLE, ""),
            ("507 Insufficient Storage: ", Exhausted, codes::STORE_FULL, "quota"),
            ("501 Not Implemented: ", Unsupported, codes::STORE_UNSUPPORTED, ""),
            (
                "400 Bad Request: AuthorizationHeaderMalformed: No.",
                Invalid,
                codes::STORE_ADDRESS,
                "AWS_REGION",
            ),
        ];
        for (said, kind, code, hint) in expected {
            let error = generic(said);
            assert_eq!((error.kind(), error.code()), (kind, code), "{said}");
            assert!(error.hint().unwrap_or_default().contains(hint), "{said}: {:?}", error.hint());
            assert!(
                !format!("{error} {error:?}").contains("secret in"),
                "the crate's words are shown: {error}"
            );
        }
    }

    #[test]
    fn what_google_answers_has_the_kind_that_says_what_to_do() {
        use ErrorKind::{Conflict, Exhausted, Unauthorized, Unavailable};
        let expected = [
            (401, "authError: Invalid Credentials", Unauthorized, codes::STORE_DENIED),
            (403, "forbidden: No.", Unauthorized, codes::STORE_DENIED),
            (403, "rateLimitExceeded: Slow.", Unavailable, codes::STORE_UNAVAILABLE),
            (403, "retentionPolicyNotMet: Locked.", Unauthorized, codes::STORE_DENIED),
            (403, "quotaExceeded: Full.", Exhausted, codes::STORE_FULL),
            (412, "conditionNotMet: There.", Conflict, codes::OBJECT_EXISTS),
            (429, "rateLimitExceeded: Slow.", Unavailable, codes::STORE_UNAVAILABLE),
            (500, "", Unavailable, codes::STORE_UNAVAILABLE),
            (503, "backendError: Later.", Unavailable, codes::STORE_UNAVAILABLE),
        ];
        for (status, said, kind, code) in expected {
            let status = StatusCode::from_u16(status).unwrap();
            let error = refusal("gs://b", "data/x", status, said);
            assert_eq!((error.kind(), error.code()), (kind, code), "{status} {said}: {error}");
        }
    }

    #[test]
    fn a_machine_without_a_role_is_told_to_set_credentials() {
        let source = format!("Error performing PUT {METADATA}169.254/latest/api/token in 1s - no route");
        let error = remote("s3://b", "config", &Remote::Generic { store: "S3", source: source.into() });
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED));
    }
}
