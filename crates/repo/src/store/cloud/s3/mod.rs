//! Amazon S3, and whatever speaks its protocol.
//!
//! `Create` is a `PUT` with `If-None-Match: *`. A delete is one `DELETE` for each object, which every server knows and
//! which a policy can refuse object by object. Locks of objects and old versions, which the crate has no calls for, are in
//! `signed`, `locks` and `as_of`. `docs/immutability.md`.

mod as_of;
mod locks;
mod signed;
mod versions;

pub(super) use as_of::as_of;

use super::http::Connector;
use super::locks::Way;
use super::{Patience, Place, Variables, no_retries, settings, variable};
use crate::store::{Capabilities, ObjectStore, Store};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector as _};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, ClientOptions};
use retoma_core::Result;
use signed::Signed;
use std::sync::Arc;

const HINT: &str = "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN` for credentials that \
                    expire), or neither where a role of the machine gives them; `AWS_ENDPOINT_URL` begins with \
                    `https://`";
const CAPABILITIES: Capabilities =
    Capabilities { conditional_create: true, delete: true, versions: true, far: true };

pub(super) fn open(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(Bucket::new(place, variables, patience)?.store(place)))
}

/// The way to ask about locks there.
pub(super) fn way(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Way>> {
    Ok(Arc::new(Bucket::new(place, variables, patience)?.signed(place)))
}

/// The crate's bucket, and the way to it.
struct Bucket {
    remote: Arc<AmazonS3>,
    client: HttpClient,
    patience: Patience,
}

impl Bucket {
    fn new(place: &Place, variables: &Variables, patience: Patience) -> Result<Self> {
        let client = |key: &AmazonS3ConfigKey| match key {
            AmazonS3ConfigKey::Client(key) => Some(*key),
            _ => None,
        };
        let builder = settings(variables, "AWS_", client)
            .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value));
        let allows_clear = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        let roots = variable(variables, "AWS_CA_BUNDLE").or_else(|| variable(variables, "SSL_CERT_FILE"));
        let connector = Connector::new(roots, patience)?;
        let refused = || place.refused("s3", HINT);
        let options = ClientOptions::new().with_allow_http(allows_clear.as_deref() == Some("true"));
        let client = connector.connect(&options).map_err(|_| refused())?;
        let built = builder
            .with_bucket_name(&place.bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_disable_bulk_delete(true)
            .with_retry(no_retries())
            .with_http_connector(connector)
            .build();
        Ok(Self { remote: Arc::new(built.map_err(|_| refused())?), client, patience })
    }

    /// Our store over it, below the prefix.
    fn store(&self, place: &Place) -> ObjectStore {
        let below = PrefixStore::new(Arc::clone(&self.remote), Path::from(place.prefix.as_str()));
        ObjectStore::new(Arc::new(below), place.location("s3"), CAPABILITIES, self.patience)
    }

    /// For requests that the crate has no call for.
    fn signed(&self, place: &Place) -> Signed {
        let prefix = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
        Signed {
            remote: Arc::clone(&self.remote),
            client: self.client.clone(),
            prefix,
            location: place.location("s3"),
            patience: self.patience,
        }
    }
}
