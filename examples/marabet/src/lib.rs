//! `MaraBet`: the sample service that Retoma's demo and drills protect, destroy and bring back.
//!
//! It stands for a user's product and is small on purpose: an HTTP service that predicts with a model file and keeps
//! each prediction in SQLite. What makes it useful in a drill are its promises, all tested with the real program:
//! - what it acknowledges is durable (WAL with `synchronous=FULL`), also when it is killed;
//! - `/healthz` is green only when the database answers and the model on disk is the one that its checksum names;
//! - a database file that was removed or replaced under the running service is noticed before the next answer;
//! - numbered markers tell afterwards which acknowledged writes were lost.
//!
//! A root folder holds everything: `config/marabet.toml`, `data/marabet.sqlite`, `models/*.f32` each with a
//! `.sha256` beside it, `logs/marabet.log`. [`seed`](seed()) makes one, [`serve`](serve()) runs one, [`load`](load())
//! writes to one over HTTP, and [`command`](command()) is the command line for the three.
//!
//! It does not authenticate anybody and listens on the loopback address only.

mod command;
mod config;
mod files;
mod load;
mod model;
mod random;
mod seed;
mod serve;
mod store;

pub use command::command;
pub use config::{Config, Layout};
pub use load::{Acknowledgement, BaseUrl, LoadOptions, LoadReport, Outage, load, markers};
pub use model::{MODEL_HEADER_BYTES, Model};
pub use seed::{SeedOptions, SeedPart, SeedProgress, SeedReport, seed};
pub use serve::{ServeOptions, serve};
pub use store::{MarkerSummary, NewPrediction, Prediction, PredictionStore, SqliteStore};
