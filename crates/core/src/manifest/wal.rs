//! How a component's WAL gets into its repositories: `[component.wal]`.

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

/// What `[component.wal]` says; the defaults where it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalSettings {
    /// The way.
    pub mode: WalMode,
    /// How much the slot may keep, in bytes.
    pub slot_limit_bytes: u64,
    /// What happens then.
    pub at_slot_limit: SlotPolicy,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self { mode: WalMode::default(), slot_limit_bytes: 16 << 30, at_slot_limit: SlotPolicy::default() }
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
