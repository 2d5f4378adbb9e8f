//! Loops with effects: back up, recover, drill.
//!
//! What is decided here is when and in which order things are done; what follows from them is decided in
//! [`retoma_core::decide`], and how bytes are stored in [`retoma_repo`]. Nothing here prints: functions return values
//! and tell a [`Watch`] what they are doing. Every wait has a deadline and ends when an [`Interrupt`] says so.

pub mod agent;
pub mod backup;
pub mod check;
pub mod choose;
pub mod copy;
pub mod demo;
pub mod drill;
pub mod durable;
pub mod interrupt;
pub mod keyring;
pub mod keys;
pub mod open;
pub mod paths;
pub mod postgres;
pub mod probe;
pub mod recover;
pub mod service;
pub mod timeline;
pub mod transit;
pub mod unlock;
pub mod wal;
pub mod watch;

pub use interrupt::{Interrupt, Stopwatch};
pub use retoma_core::{Error, ErrorKind, Result, ResultExt};
pub use service::{Service, Supervisor};
pub use timeline::Timeline;
pub use watch::{Note, Silent, Watch};
