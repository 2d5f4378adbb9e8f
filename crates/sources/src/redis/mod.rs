//! Redis: the state of one moment of a running server, as a replica gets it. What it means: `docs/redis.md`.
//!
//! ```text
//! connection: INFO, CONFIG ─▶ transfer: PSYNC ─▶ RDB, counted and summed up while it passes ─▶ snapshot ─▶ facts
//! ```
//! The data set is stored as one file, `dump.rdb`, in a folder that `redis-server --dir` starts from. It is never written to
//! this machine's disk.
//!
//! Invariants: a transfer that ends early, a checksum that does not fit or a data set that lost everything leaves no
//! snapshot; a hostile server makes us neither panic nor hold more than named limits.
//!
//! It does not follow the stream of writes after that moment, and stores no configuration.

mod address;
mod check;
mod connection;
mod crc64;
mod error;
mod facts;
pub mod rdb;
mod resp;
mod scratch;
mod server;
mod source;
mod transfer;

pub use address::{Address, Endpoint, Tls};
pub use check::{CheckOptions, CheckReport, check};
pub use connection::Connection;
pub use facts::{DUMP_NAME, DatabaseKeys, FACTS_PATH, Module, RedisFacts, facts_of};
pub use resp::Value;
pub use scratch::Scratch;
pub use server::Server;
pub use source::RedisSource;
