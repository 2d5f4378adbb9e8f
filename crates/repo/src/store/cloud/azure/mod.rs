//! Azure Blob Storage. `Create` is a `Put Blob` with `If-None-Match: *`. Locks of blobs, which the crate has no calls for, are in
//! `held`. `docs/immutability.md`.

mod held;

use super::http::Connector;
use super::locks::{Way, no_locks};
use super::{Patience, Place, Variables, no_retries, settings, variable};
use crate::store::Store;
use held::Blobs;
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::HttpConnector as _;
use object_store::{ClientConfigKey, ClientOptions};
use retoma_core::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use url::Url;

const HINT: &str = "set `AZURE_STORAGE_ACCOUNT_NAME`, and `AZURE_STORAGE_ACCOUNT_KEY` or `AZURE_STORAGE_SAS_TOKEN`, or \
                    neither where an identity of the machine is used";

pub(super) fn open(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Store>> {
    let remote = built(builder(variables), place, Connector::new(roots(variables), patience)?)?;
    Ok(place.store("az", remote, patience))
}

/// The way to ask about locks there.
///
/// # Errors
/// `Invalid` with `R0312` for an emulator and for keys of the customer's own, which are not sent with requests of ours.
pub(super) fn way(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Way>> {
    let builder = builder(variables);
    let setting = |key| builder.get_config_value(&key);
    let is_set = |key| setting(key).as_deref() == Some("true");
    if is_set(AzureConfigKey::UseEmulator) || setting(AzureConfigKey::EncryptionKey).is_some() {
        return Err(no_locks(
            &place.location("az"),
            "no locks with an emulator or `AZURE_STORAGE_ENCRYPTION_KEY`",
        ));
    }
    let refused = || place.refused("az", HINT);
    let account = setting(AzureConfigKey::AccountName).ok_or_else(refused)?;
    let host =
        if is_set(AzureConfigKey::UseFabricEndpoint) { "fabric.microsoft.com" } else { "core.windows.net" };
    let endpoint =
        setting(AzureConfigKey::Endpoint).unwrap_or_else(|| format!("https://{account}.blob.{host}"));
    let mut container: Url = endpoint.parse().map_err(|_| refused())?;
    container.path_segments_mut().map_err(|()| refused())?.pop_if_empty().push(&place.bucket);
    let asks_for_no_signature = is_set(AzureConfigKey::SkipSignature);
    let allows_clear = is_set(AzureConfigKey::Client(ClientConfigKey::AllowHttp));
    let connector = Connector::new(roots(variables), patience)?;
    let client =
        connector.connect(&ClientOptions::new().with_allow_http(allows_clear)).map_err(|_| refused())?;
    let remote = built(builder, place, connector)?;
    Ok(Arc::new(Blobs {
        client,
        credentials: (!asks_for_no_signature).then(|| Arc::clone(remote.credentials())),
        account,
        container,
        prefix: if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) },
        location: place.location("az"),
        is_proven: AtomicBool::new(false),
    }))
}

fn builder(variables: &Variables) -> MicrosoftAzureBuilder {
    let client = |key: &AzureConfigKey| match key {
        AzureConfigKey::Client(key) => Some(*key),
        _ => None,
    };
    settings(variables, "AZURE_", client)
        .fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| builder.with_config(key, value))
}

fn roots(variables: &Variables) -> Option<&str> {
    variable(variables, "SSL_CERT_FILE")
}

fn built(builder: MicrosoftAzureBuilder, place: &Place, connector: Connector) -> Result<MicrosoftAzure> {
    let builder = builder.with_container_name(&place.bucket).with_retry(no_retries());
    builder.with_http_connector(connector).build().map_err(|_| place.refused("az", HINT))
}
