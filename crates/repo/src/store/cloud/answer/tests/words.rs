//! What each word of a provider means for the caller: the kind decides whether a call is repeated, and whether a backup that
//! was written counts as written.

use super::*;
use proptest::prelude::*;

fn said(status: u16, said: &str) -> Error {
    let error = refusal("s3://b/p", "data/x", StatusCode::from_u16(status).unwrap(), said);
    let by_crate = generic(&format!(
        "{} {}: {said}",
        status,
        StatusCode::from_u16(status).unwrap().canonical_reason().unwrap_or("?")
    ));
    // What we read ourselves and what the crate tells of it is one thing.
    assert_eq!((error.kind(), error.code()), (by_crate.kind(), by_crate.code()), "{status} {said}");
    error
}

#[test]
fn every_code_that_is_known_has_its_kind_whatever_the_status() {
    use ErrorKind::{Exhausted, Invalid, Unauthorized, Unavailable};
    let known: [(&[&str], ErrorKind, retoma_core::Code); 7] = [
        (&["NoSuchBucket", "ContainerNotFound"], Invalid, codes::STORE_BUCKET),
        (
            &[
                "RequestTimeTooSkewed",
                "ExpiredToken",
                "ExpiredTokenException",
                "TokenRefreshRequired",
                "InvalidAccessKeyId",
                "SignatureDoesNotMatch",
                "InvalidToken",
                "AuthenticationFailed",
                "authError",
                "invalid_grant",
            ],
            Unauthorized,
            codes::STORE_DENIED,
        ),
        (
            &["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"],
            Invalid,
            codes::STORE_ADDRESS,
        ),
        (
            &["QuotaExceeded", "quotaExceeded", "InsufficientStorage", "XMinioStorageFull", "EntityTooLarge"],
            Exhausted,
            codes::STORE_FULL,
        ),
        (&["rateLimitExceeded", "userRateLimitExceeded"], Unavailable, codes::STORE_UNAVAILABLE),
        (&["ConditionalRequestConflict", "OperationAborted"], Unavailable, codes::STORE_UNAVAILABLE),
        (
            &[
                "BlobImmutableDueToPolicy",
                "LeaseIdMissing",
                "ObjectUnderRetention",
                "retentionPolicyNotMet",
                "objectUnderActiveHold",
            ],
            Unauthorized,
            codes::STORE_DENIED,
        ),
    ];
    for (words, kind, code) in known {
        for word in words {
            for status in [400, 403, 404, 409, 412, 500, 503] {
                let error = said(status, &format!("{word}: Something."));
                assert_eq!((error.kind(), error.code()), (kind, code), "{status} {word}");
                assert!(error.to_string().contains("s3://b/p"), "{error}");
            }
        }
    }
}

#[test]
fn without_a_word_the_status_decides_and_what_is_not_known_may_pass() {
    use ErrorKind::{Conflict, Exhausted, Invalid, NotFound, Unauthorized, Unavailable, Unsupported};
    for (status, kind) in [
        (301, Invalid),
        (400, Unavailable),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (405, Unsupported),
        (408, Unavailable),
        (409, Unavailable),
        (412, Conflict),
        (413, Exhausted),
        (416, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (501, Unsupported),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
        (507, Exhausted),
    ] {
        for word in ["", "Other: words", "other"] {
            assert_eq!(said(status, word).kind(), kind, "{status} {word}");
        }
    }
}

/// A word inside of a message or a name is none of the provider's codes.
#[test]
fn a_code_counts_only_where_codes_stand() {
    for text in [
        "Other: the bucket says NoSuchBucket: no",
        "Other: QuotaExceeded",
        "x NoSuchBucket: y",
        "nosuchbucket: y",
    ] {
        assert_eq!(said(503, text).kind(), ErrorKind::Unavailable, "{text}");
    }
}

#[test]
fn what_the_crate_tells_by_its_variant_is_believed_when_no_word_says_more() {
    let source = || Box::<dyn StdError + Send + Sync>::from("no more is known");
    let path = || "data/x".to_owned();
    let of = |remote_error: Remote| remote("s3://b", "data/x", &remote_error).kind();
    assert_eq!(of(Remote::NotFound { path: path(), source: source() }), ErrorKind::NotFound);
    assert_eq!(of(Remote::AlreadyExists { path: path(), source: source() }), ErrorKind::Conflict);
    assert_eq!(of(Remote::Precondition { path: path(), source: source() }), ErrorKind::Conflict);
    assert_eq!(of(Remote::PermissionDenied { path: path(), source: source() }), ErrorKind::Unauthorized);
    assert_eq!(of(Remote::Unauthenticated { path: path(), source: source() }), ErrorKind::Unauthorized);
    assert_eq!(of(Remote::Generic { store: "S3", source: source() }), ErrorKind::Unavailable);
    let bucket: Box<dyn StdError + Send + Sync> =
        format!("{CRATE} {STATUS}404 Not Found: NoSuchBucket: None.").into();
    assert_eq!(
        of(Remote::NotFound { path: path(), source: bucket }),
        ErrorKind::Invalid,
        "the bucket, not the object"
    );
}

#[test]
fn silence_is_told_from_a_connection_that_was_refused() {
    let failure = |kind, text: &str| HttpError::new(kind, std::io::Error::other(text.to_owned()));
    let late = no_answer("gs://b", "data/x", &failure(HttpErrorKind::Timeout, "nothing came"));
    let refused = no_answer("gs://b", "data/x", &failure(HttpErrorKind::Connect, "connection refused"));
    assert_eq!((late.kind(), late.code()), (ErrorKind::Unavailable, codes::STORE_TIMEOUT));
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unavailable, codes::STORE_UNAVAILABLE));
    assert!(refused.to_string().contains("connection refused"), "{refused}");
    assert!(refused.hint().unwrap().contains("AWS_ALLOW_HTTP"));
    assert_eq!(slow("gs://b", "data/x").code(), codes::STORE_TIMEOUT);
}

proptest! {
    /// Whatever a server says: never a success, never `NotFound` without the status that says so, and never a panic.
    #[test]
    fn whatever_is_said_nothing_is_taken_for_absent_or_written_but_by_its_status(status in 400u16..600, text in "\\PC{0,60}") {
        let error = refusal("s3://b", "data/x", StatusCode::from_u16(status).unwrap(), &text);
        prop_assert!(error.kind() != ErrorKind::NotFound || status == 404);
        prop_assert!(error.kind() != ErrorKind::Conflict || status == 412);
        let read = generic(&format!("{status} X: {text}"));
        prop_assert!(read.kind() != ErrorKind::NotFound || status == 404);
        prop_assert!(read.kind() != ErrorKind::Conflict || status == 412);
    }
}
