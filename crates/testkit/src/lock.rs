//! Locks of others.

use retoma_repo::format::lock::Lock;
use retoma_repo::host;

/// A lock as restic leaves it, by a process that runs (this one), as of now.
pub fn restic_lock(exclusive: bool) -> Lock {
    Lock {
        time: host::now(),
        exclusive,
        hostname: host::hostname(),
        username: "root".to_owned(),
        pid: host::pid(),
        uid: None,
        gid: None,
        retoma: None,
        since: None,
    }
}
