//! Whether a record still counts: the pure rules of `retoma_core::decide::staleness` on a record.

use super::record::Record;
use retoma_core::decide::staleness::{Facts, StaleReason, staleness};
use std::time::Duration;

/// Every reason why `record` no longer counts under the facts `current`; none when it counts.
///
/// `current.data_bytes` must be about the components that the record is about. Whether the record is authentic is
/// decided where it is read.
pub fn stale(record: &Record, current: &Facts<'_>, max_age: Duration) -> Vec<StaleReason> {
    let payload = record.payload();
    let key_id = payload.subject.key_id.to_hex();
    let recorded = Facts {
        manifest_hash: &payload.subject.manifest_hash,
        tool_version: &payload.tool_version,
        key_id: &key_id,
        data_bytes: payload.subject.data_bytes(),
        time: payload.time,
    };
    staleness(&recorded, current, max_age)
}
