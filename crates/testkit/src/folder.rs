//! Folders that go when the test ends.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A new empty folder, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes one where the system keeps temporary files (`TMPDIR`).
    ///
    /// # Panics
    /// When that is impossible: no test can go on.
    #[allow(clippy::expect_used)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("retoma-test-").tempdir().expect("make a temporary folder"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
}
