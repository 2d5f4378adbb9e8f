//! What a server can make us hold or wait for, at most.

use std::time::Duration;

/// The largest message before the login is done, in bytes.
pub const LOGIN_MESSAGE_BYTES: usize = 64 << 10;
/// The largest message afterwards, in bytes: one row, one piece of a copy, one piece of WAL.
pub const MESSAGE_BYTES: usize = 64 << 20;
/// The largest result that is collected, in bytes; a larger one is streamed or refused.
pub const RESULT_BYTES: usize = 64 << 20;
/// What one row costs us beside its bytes, so that empty rows count too.
pub(super) const ROW_COST_BYTES: usize = 64;
/// The longest history file of a timeline, in bytes.
pub const HISTORY_FILE_BYTES: usize = 16 << 20;
/// How many messages beside the answer (notices, notifications, changed parameters) a statement may have.
pub const ASIDES: u32 = 100_000;
/// How many messages a login may have, of any kind.
pub(super) const LOGIN_MESSAGES: u32 = 1_000;
/// How many parameters of the server are kept.
pub(super) const PARAMETERS: usize = 200;
/// How many notices are kept until somebody takes them; the first ones stay.
pub const NOTICES: usize = 100;
/// How much of a text from the server is shown, in characters.
pub(super) const SHOWN_CHARS: usize = 1_000;
/// How much is read at once, in bytes.
pub(super) const READ_BYTES: usize = 64 << 10;
/// How much of a copy is sent in one message, in bytes.
pub(super) const COPY_BYTES: usize = 64 << 10;

/// How long a login may take when the address does not say it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent while we wait for its answer.
pub const SILENCE: Duration = Duration::from_mins(10);
