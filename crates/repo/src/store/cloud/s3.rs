//! Amazon S3, and whatever speaks its protocol.
//!
//! `Create` is a `PUT` with `If-None-Match: *`. A delete is one `DELETE` for each object, which every server knows and
//! which a policy can refuse object by object.

use super::http::Connector;
use super::{Patience, Place, Variables, no_retries, settings, variable};
use crate::store::Store;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use retoma_core::Result;
use std::sync::Arc;

const HINT: &str = "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN` for credentials that \
                    expire), or neither where a role of the machine gives them; `AWS_ENDPOINT_URL` begins with \
                    `https://`";

pub(super) fn open(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Store>> {
    let client = |key: &AmazonS3ConfigKey| match key {
        AmazonS3ConfigKey::Client(key) => Some(*key),
        _ => None,
    };
    let builder = settings(variables, "AWS_", client)
        .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value));
    let roots = variable(variables, "AWS_CA_BUNDLE").or_else(|| variable(variables, "SSL_CERT_FILE"));
    let built = builder
        .with_bucket_name(&place.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_http_connector(Connector::new(roots, patience)?)
        .build();
    match built {
        Ok(remote) => Ok(place.store("s3", remote, patience)),
        Err(_) => Err(place.refused("s3", HINT)),
    }
}
