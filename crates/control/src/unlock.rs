//! Shares that somebody brought, so that repositories open without a password. `docs/keys.md`.
//!
//! They are offered once, by who reads the command line; whoever opens a repository deep inside knows nothing of it. While shares
//! are offered no password is read at all: who tries shares wants to know whether *they* open.

use crate::open;
use retoma_core::manifest::SecretRef;
use retoma_core::share::Share;
use retoma_core::{Result, ResultExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static OFFERED: Mutex<Option<Arc<Vec<Share>>>> = Mutex::new(None);

fn slot() -> MutexGuard<'static, Option<Arc<Vec<Share>>>> {
    OFFERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shares are offered until this is dropped, and overwritten then.
#[derive(Debug)]
pub struct Offered(());

impl Drop for Offered {
    fn drop(&mut self) {
        *slot() = None;
    }
}

/// Offers `shares` to whoever opens a repository from now on.
pub fn offer(shares: Vec<Share>) -> Offered {
    *slot() = Some(Arc::new(shares));
    Offered(())
}

/// What is offered, if anything.
pub fn offered() -> Option<Arc<Vec<Share>>> {
    slot().clone()
}

/// Reads a share from a file that not everybody may read.
///
/// # Errors
/// `R0102` as for every secret; `R0231` when it is no share, with the line that is wrong.
pub fn read_share(path: &Path) -> Result<Share> {
    let text = open::secret(&SecretRef::File(path.to_owned()))?;
    Share::parse(text.expose()).with_context(|| format!("read the share in {}", path.display()))
}
