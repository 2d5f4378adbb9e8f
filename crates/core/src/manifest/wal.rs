//! How a component's WAL gets into its repositories: `[component.wal]`.

use crate::units::Duration;

/// The names of [`WalMode`]'s values, in their order.
pub(super) const MODES: [&str; 3] = ["archive", "stream", "synchronous"];
/// The names of [`SlotPolicy`]'s values, in their order.
pub(super) const POLICIES: [&str; 2] = ["drop", "keep"];

/// The way of a server's WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalMode {
    /// `archive_command` runs `wal push`.
    #[default]
    Archive,
    /// `wal stream` ships what the server writes, at once.
    Stream,
    /// As `Stream`, and the server's commits wait for it.
    Synchronous,
}

/// What is given up when a slot keeps as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlotPolicy {
    /// The slot: the database lives, and there is a gap until the next backup.
    #[default]
    Drop,
    /// Nothing: the server's disk may fill up.
    Keep,
}

/// What may be lost at most while WAL is streamed, in any case: what was written since the last shipment, and the time to
/// store it. `docs/wal.md` has the measurement.
const STREAMED_WITHIN: Duration = Duration::from_seconds(1);

/// What `[component.wal]` says; the defaults where it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalSettings {
    /// The way.
    pub mode: WalMode,
    /// The server's `archive_timeout`, as it is declared; absent when nothing is promised of the archive.
    pub archive_timeout: Option<Duration>,
    /// How much the slot may keep, in bytes.
    pub slot_limit_bytes: u64,
    /// What happens then.
    pub at_slot_limit: SlotPolicy,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self {
            mode: WalMode::default(),
            archive_timeout: None,
            slot_limit_bytes: 16 << 30,
            at_slot_limit: SlotPolicy::default(),
        }
    }
}

impl WalSettings {
    /// How long after it was written WAL is in the repositories at the latest, when a segment takes up to `push` to get
    /// there; `None` when nothing is promised.
    pub(super) fn shipped_within(&self, push: Duration) -> Option<Duration> {
        match self.mode {
            WalMode::Archive => self.archive_timeout.map(|timeout| timeout.saturating_add(push)),
            WalMode::Stream => Some(STREAMED_WITHIN),
            WalMode::Synchronous => Some(Duration::ZERO),
        }
    }
}

impl WalMode {
    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        MODES[self as usize]
    }

    /// The mode of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Archive, Self::Stream, Self::Synchronous].into_iter().find(|mode| mode.as_str() == name)
    }
}

impl SlotPolicy {
    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        POLICIES[self as usize]
    }

    /// The policy of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Drop, Self::Keep].into_iter().find(|policy| policy.as_str() == name)
    }
}
