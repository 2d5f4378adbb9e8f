//! The seeded database.

use std::fs::{self, File};
use std::path::Path;

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, params};

use super::{FEATURES, HISTORY_END_MS, MODEL_VERSION, SeedOptions, SeedPart, SeedProgress, Steps};
use crate::files::sync_folder_of;
use crate::random::Random;
use crate::store::{SCHEMA, encode_features};

const INDEXES: &str = "
    CREATE INDEX predictions_by_user ON predictions (user_id, created_ms);
    CREATE INDEX events_by_user ON events (user_id);
";
/// The time between two seeded predictions, in milliseconds.
const PACE_MS: i64 = 2000;

const FIRST_NAMES: &[&str] =
    &["Ana", "Bruno", "Carla", "Diego", "Elena", "Filipe", "Gabi", "Hugo", "Iara", "Jorge", "Lia", "Mateus"];
const LAST_NAMES: &[&str] = &[
    "Almeida", "Barros", "Costa", "Dias", "Esteves", "Ferreira", "Gomes", "Lima", "Moreira", "Nunes", "Rocha",
];
const KINDS: &[&str] = &["login", "logout", "prediction_viewed", "plan_changed", "password_changed"];
const DEVICES: &[&str] = &["web", "android", "ios"];

/// Writes the database to `path`, where none may be; gives its size in bytes.
pub(super) fn write(
    path: &Path,
    options: &SeedOptions,
    progress: &(dyn Fn(SeedProgress) + Sync),
) -> Result<u64> {
    let failed = |error: rusqlite::Error| {
        Error::new(ErrorKind::Unavailable, codes::SAMPLE_DATABASE, format!("`{}`: {error}", path.display()))
            .context("seed database")
    };
    fill(path, options, &mut Steps::new(progress, SeedPart::Database, options.rows)).map_err(failed)?;
    let io = |error| Error::io(path.display(), error);
    // Nothing was synced while it was filled.
    File::open(path).and_then(|file| file.sync_all()).map_err(io)?;
    sync_folder_of(path)?;
    Ok(fs::metadata(path).map_err(io)?.len())
}

fn fill(path: &Path, options: &SeedOptions, steps: &mut Steps<'_>) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "cache_size", -64_000)?;
    // Every user that a row names is made here; looking each up would only take time.
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let users = u32::try_from(options.rows / 100).unwrap_or(u32::MAX).max(1);
    fill_users(&transaction, users, &mut Random::part(options.seed, 1))?;
    fill_events(&transaction, options.rows / 10, users, &mut Random::part(options.seed, 2))?;
    fill_predictions(&transaction, options.rows, users, &mut Random::part(options.seed, 3), steps)?;
    transaction.execute_batch(INDEXES)?;
    transaction.commit()?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

fn fill_users(connection: &Connection, users: u32, random: &mut Random) -> rusqlite::Result<()> {
    let mut insert = connection.prepare("INSERT INTO users (name, email, created_ms) VALUES (?1, ?2, ?3)")?;
    for number in 1..=users {
        let (first, last) = (random.choose(FIRST_NAMES), random.choose(LAST_NAMES));
        let email = format!("{}.{}{number}@example.com", first.to_lowercase(), last.to_lowercase());
        let created_ms = HISTORY_END_MS - i64::from(random.below(u32::MAX)) * 20;
        insert.execute(params![format!("{first} {last}"), email, created_ms])?;
    }
    Ok(())
}

fn fill_events(
    connection: &Connection,
    events: u64,
    users: u32,
    random: &mut Random,
) -> rusqlite::Result<()> {
    let mut insert = connection
        .prepare("INSERT INTO events (user_id, kind, created_ms, detail) VALUES (?1, ?2, ?3, ?4)")?;
    for age in (0..events).rev() {
        let created_ms = HISTORY_END_MS - i64::try_from(age).unwrap_or(0) * PACE_MS * 10;
        let detail =
            format!("{{\"device\":\"{}\",\"session\":\"{:016x}\"}}", random.choose(DEVICES), random.next());
        insert.execute(params![1 + random.below(users), random.choose(KINDS), created_ms, detail])?;
    }
    Ok(())
}

fn fill_predictions(
    connection: &Connection,
    rows: u64,
    users: u32,
    random: &mut Random,
    steps: &mut Steps<'_>,
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare(
        "INSERT INTO predictions (user_id, created_ms, model_version, score, features) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for done in 0..rows {
        let features: Vec<f32> = (0..FEATURES).map(|_| random.normal()).collect();
        let score = 1.0 / (1.0 + f64::from(-random.normal()).exp());
        let age = i64::try_from(rows - done).unwrap_or(0);
        insert.execute(params![
            1 + random.below(users),
            HISTORY_END_MS - age * PACE_MS,
            MODEL_VERSION,
            score,
            encode_features(&features)
        ])?;
        if done % 4096 == 0 {
            steps.at(done);
        }
    }
    steps.at(rows);
    Ok(())
}
