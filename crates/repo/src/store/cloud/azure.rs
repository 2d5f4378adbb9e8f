//! Azure Blob Storage. `Create` is a `Put Blob` with `If-None-Match: *`.

use super::http::Connector;
use super::{Patience, Place, Variables, no_retries, settings, variable};
use crate::store::Store;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use retoma_core::Result;
use std::sync::Arc;

const HINT: &str = "set `AZURE_STORAGE_ACCOUNT_NAME`, and `AZURE_STORAGE_ACCOUNT_KEY` or `AZURE_STORAGE_SAS_TOKEN`, or \
                    neither where an identity of the machine is used";

pub(super) fn open(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Store>> {
    let client = |key: &AzureConfigKey| match key {
        AzureConfigKey::Client(key) => Some(*key),
        _ => None,
    };
    let builder = settings(variables, "AZURE_", client)
        .fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| builder.with_config(key, value));
    let built = builder
        .with_container_name(&place.bucket)
        .with_retry(no_retries())
        .with_http_connector(Connector::new(variable(variables, "SSL_CERT_FILE"), patience)?)
        .build();
    match built {
        Ok(remote) => Ok(place.store("az", remote, patience)),
        Err(_) => Err(place.refused("az", HINT)),
    }
}
