//! SQLite: one database file, captured as of one read transaction while others write.
//!
//! ```text
//! open ─▶ read transaction ─▶ integrity_check ─▶ rows of each table ─▶ pages 1..n through the pager ─▶ end
//! ```
//! The pages come from the virtual table `sqlite_dbpage`, which asks the pager: what a commit left in the WAL counts, what
//! came after our transaction does not. No copy is made, and each page keeps its place, so that chunks of what did not
//! change are known already. With the file goes [`FACTS_PATH`], which says what was captured ([`CaptureFacts`]).
//!
//! Invariants: a database that is empty or damaged is never captured; nothing here opens the database file by itself while
//! a capture is under way, since closing it would drop the locks that SQLite holds for this process (POSIX locks).
//!
//! It does not ship the WAL continuously, and it does not wait for the application: what is not committed is not there.

mod check;
mod database;
mod facts;
mod pages;
mod source;
mod target;

pub use check::{CheckReport, check};
pub use database::Options;
pub use facts::{CaptureFacts, FACTS_PATH, compare, facts_of};
pub use source::SqliteSource;
pub use target::{Holder, after_restore, is_live, prepare_target};
