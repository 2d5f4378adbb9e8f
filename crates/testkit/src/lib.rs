//! Test support: a store with scripted faults, a clock in the test's hand, data, folders and tools.
//!
//! Only tests depend on this crate. It depends on `retoma-repo`, so the tests *inside* `retoma-repo` (`mod tests` in
//! `src`) cannot use it: they would see two `Store` traits, their own and the one that this crate was built with.
//! `crates/repo/tests/it` can, since it links the same library as this crate does.

mod acceptor;
pub mod blank;
pub mod buckets;
pub mod clock;
pub mod data;
pub mod faulty;
pub mod folder;
pub mod http_proxy;
pub mod lock;
pub mod mail;
pub mod manifest;
pub mod memory;
pub mod namespace;
mod port;
pub mod postgres;
mod process;
pub mod redis;
pub mod repository;
pub mod sftp;
pub mod tools;
pub mod wait;
pub mod wal;

pub use blank::BlankMachine;
pub use buckets::{
    AzureLock, AzuriteServer, BaoServer, GcsServer, GoogleLock, ImmutableAzure, RetainingGoogle, S3Client,
    S3Version, SeaweedServer,
};
pub use clock::ManualClock;
pub use data::{Random, bytes};
pub use faulty::{Call, Fault, FaultyStore, Rates, Rule, When};
pub use folder::Folder;
pub use http_proxy::{Canned, Exchange, Fate, HttpProxy, Seen, Tunnel};
pub use lock::restic_lock;
pub use mail::{MailOptions, MailServer};
pub use memory::{MemorySource, noise};
pub use namespace::in_namespace;
pub use port::free_port;
pub use postgres::{PostgresOptions, PostgresServer, StopMode};
pub use redis::{RedisClient, RedisOptions, RedisReply, RedisServer, RedisTls, fill_redis, redis_command};
pub use repository::repository;
pub use sftp::SftpServer;
pub use tools::{require_local_tool, require_tool};
pub use wait::{PATIENCE, wait_for, wait_for_long, wait_for_what};
