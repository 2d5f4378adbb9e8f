//! Test support: a store with scripted faults, a clock in the test's hand, data, folders and tools.
//!
//! Only tests depend on this crate. It depends on `retoma-repo`, so the tests *inside* `retoma-repo` (`mod tests` in
//! `src`) cannot use it: they would see two `Store` traits, their own and the one that this crate was built with.
//! `crates/repo/tests/it` can, since it links the same library as this crate does.

pub mod clock;
pub mod data;
pub mod faulty;
pub mod folder;
pub mod lock;
pub mod manifest;
pub mod memory;
pub mod postgres;
mod process;
pub mod redis;
pub mod repository;
pub mod tools;
pub mod wait;
pub mod wal;

pub use clock::ManualClock;
pub use data::{Random, bytes};
pub use faulty::{Call, Fault, FaultyStore, Rates, Rule, When};
pub use folder::Folder;
pub use lock::restic_lock;
pub use memory::{MemorySource, noise};
pub use postgres::{PostgresOptions, PostgresServer, StopMode};
pub use redis::{RedisOptions, RedisServer, RedisTls, redis_command};
pub use repository::repository;
pub use tools::require_tool;
pub use wait::{PATIENCE, wait_for, wait_for_what};
