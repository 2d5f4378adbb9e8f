//! Where predictions and markers are kept: the narrow seam behind which PostgreSQL will stand beside SQLite.
//!
//! Invariant of every implementation: a write that returned `Ok` is durable.

mod sqlite;

use retoma_core::Result;
use serde::{Deserialize, Serialize};

pub use sqlite::SqliteStore;
pub(crate) use sqlite::{SCHEMA, encode_features, unix_ms};

/// A prediction to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPrediction {
    /// The user that asked, where known.
    pub user_id: Option<i64>,
    /// The version of the model that answered.
    pub model_version: u32,
    /// The answer, 0 to 1.
    pub score: f64,
    /// What was asked about.
    pub features: Vec<f32>,
}

/// A prediction that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Its number in the store.
    pub id: i64,
    /// The user that asked, where known.
    pub user_id: Option<i64>,
    /// When it was made, in milliseconds since 1970 (UTC).
    pub created_ms: i64,
    /// The version of the model that answered.
    pub model_version: u32,
    /// The answer, 0 to 1.
    pub score: f64,
    /// What was asked about.
    pub features: Vec<f32>,
}

/// Which numbered markers of one run are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerSummary {
    /// The run.
    pub run: String,
    /// How many markers are there.
    pub count: u64,
    /// The largest number, 0 when none is there.
    pub max: u64,
    /// Ranges from 1 to `max` that are not there, ascending, both ends included.
    pub missing: Vec<(u64, u64)>,
}

impl MarkerSummary {
    /// Whether the marker `number` is there.
    pub fn contains(&self, number: u64) -> bool {
        let inside = (1..=self.max).contains(&number);
        inside && !self.missing.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }
}

/// The store of one service. Calls block; an async caller moves them to a thread.
pub trait PredictionStore: Send + Sync {
    /// `Ok` when the store answers a query on each of its tables.
    fn check(&self) -> Result<()>;
    /// Reads everything and checks that it is consistent; may take seconds.
    fn check_deep(&self) -> Result<()>;
    /// Keeps a prediction; gives its number.
    fn add_prediction(&self, prediction: &NewPrediction) -> Result<i64>;
    /// The prediction with this number.
    fn prediction(&self, id: i64) -> Result<Option<Prediction>>;
    /// The newest predictions, newest first, at most `limit`.
    fn latest_predictions(&self, limit: u32) -> Result<Vec<Prediction>>;
    /// How many predictions there are.
    fn count_predictions(&self) -> Result<u64>;
    /// Keeps the marker `number` (1 or more) of `run`; a second time changes nothing.
    fn add_marker(&self, run: &str, number: u64) -> Result<()>;
    /// Which markers of `run` are there.
    fn markers(&self, run: &str) -> Result<MarkerSummary>;
}
